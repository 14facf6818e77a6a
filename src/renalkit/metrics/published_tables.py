"""Can the numbers of a printed results table come from one pooled set of cases?

From sensitivity, specificity and any of PPV, NPV and accuracy the share of positive cases
(prevalence) follows. The shares must agree with one another, the accuracy must lie between
sensitivity and specificity, whole numbers of the stated cases must give the printed shares, and
the width of an interval tells how many cases it was made from. Every printed number stands for
the interval it was rounded from, so a finding means that no unrounded table could have been
printed this way; where a limit of taste comes in (lopsided or too wide an interval, two units
mixed), the words give the number.

A finding is a question to the authors, not a verdict: averaging over folds also breaks these
identities, and a table may count another class as positive than its neighbour.

Sources: whole numbers: the GRIM test, Brown and Heathers 2017, Soc Psychol Personal Sci 8:363;
widths: Hanley and McNeil 1982, Wald.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations, product
from math import ceil, floor, inf, isfinite, log, sqrt
from types import MappingProxyType

from renalkit.metrics.inference import normal_quantile
from renalkit.metrics.sample_size import AucModel, auc_variance

Interval = tuple[float, float]

MEASURES = ("sensitivity", "specificity", "accuracy", "ppv", "npv", "auc")
"""What a row may print, each also with an interval."""

_SHORT = {"ppv": "PPV", "npv": "NPV", "auc": "AUC"}

_ROUNDING = 1e-9
_LOPSIDED = 0.5
_WIDTH_FACTOR = 2.0
_NEAR_SHARE = 0.025
_FEW = 5
_MOST_CASES = 1_000_000


class Finding(StrEnum):
    """What a row of a table shows."""

    ACCURACY_OUTSIDE = "accuracy-outside"
    ACCURACY_BORDERLINE = "accuracy-borderline"
    PREVALENCE_DISAGREES = "prevalence-disagrees"
    POSITIVE_SHARE_DIFFERS = "positive-share-differs"
    NO_WHOLE_NUMBERS = "no-whole-numbers"
    OTHER_UNIT = "other-unit"
    SINGLE_POINT_AUC = "single-point-auc"
    AUC_IMPOSSIBLE = "auc-impossible"
    VALUE_OUTSIDE_INTERVAL = "value-outside-interval"
    LOPSIDED_INTERVAL = "lopsided-interval"
    WIDTH_DISAGREES = "width-disagrees"
    UNITS_MIXED = "units-mixed"
    SOURCES_DISAGREE = "sources-disagree"
    SWAPPED = "swapped"


_IMPOSSIBLE = frozenset(
    {
        Finding.ACCURACY_OUTSIDE,
        Finding.PREVALENCE_DISAGREES,
        Finding.NO_WHOLE_NUMBERS,
        Finding.AUC_IMPOSSIBLE,
        Finding.VALUE_OUTSIDE_INTERVAL,
    }
)


def measure_word(measure: str) -> str:
    """A measure as a sentence names it."""
    return _SHORT.get(measure, measure)


# ------------------------------------------------------------------ what is printed


@dataclass(frozen=True, slots=True)
class Printed:
    """A printed share as a fraction, and half of its last printed digit."""

    value: float
    half_step: float = 0.0005

    def __post_init__(self) -> None:
        if not (isfinite(self.value) and 0 <= self.value <= 1):
            raise ValueError(f"{self.value} is not a fraction between 0 and 1")
        if not 0 <= self.half_step < 0.06:
            raise ValueError(
                f"half of the last printed digit is {self.half_step}: expected 0 or more, and at "
                "least one decimal of a fraction"
            )

    @staticmethod
    def parse(text: str) -> Printed:
        """A share as it stands in a table: 0.804, .804, 80.4 % or 80.4 (above 1: per cent).

        Raises: ValueError.

        >>> Printed.parse("80.4 %"), Printed.parse("0.82")
        (Printed(value=0.804, half_step=0.0005), Printed(value=0.82, half_step=0.005))
        """
        found = re.fullmatch(r"([0-9]*)(?:\.([0-9]+))?\s*(%?)", text.strip())
        if found is None or not (found.group(1) or found.group(2)):
            raise ValueError(f"{text[:20]!r} is no share such as 0.804 or 80.4 %")
        number = float(f"{found.group(1) or 0}.{found.group(2) or 0}")
        scale = 100 if found.group(3) or number > 1 else 1
        digits = len(found.group(2) or "") + (2 if scale == 100 else 0)
        return Printed(round(number / scale, digits), 0.5 * 10.0**-digits)

    @property
    def range(self) -> Interval:
        """The unrounded values it may stand for."""
        low, high = self.value - self.half_step, self.value + self.half_step
        return max(0.0, low), min(1.0, high)

    def meets(self, other: Printed) -> bool:
        """Whether both may stand for one number."""
        return abs(self.value - other.value) <= self.half_step + other.half_step + _ROUNDING


@dataclass(frozen=True, slots=True)
class Cases:
    """How many cases the paper states. unit: its word for them, in the plural.

    positive: of the class counted as positive, None where only the total is stated.
    """

    unit: str
    n: int
    positive: int | None = None

    def __post_init__(self) -> None:
        whole = self.n >= 2 and (self.positive is None or 0 < self.positive < self.n)
        if not whole:
            raise ValueError(
                f"{self.positive} of {self.n} {self.unit}: expected cases of both classes"
            )

    @property
    def negative(self) -> int | None:
        return None if self.positive is None else self.n - self.positive

    @property
    def share(self) -> float | None:
        """Share of positive cases."""
        return None if self.positive is None else self.positive / self.n

    @property
    def words(self) -> str:
        if self.positive is None:
            return f"{self.n:,} {self.unit}"
        return f"{self.positive:,} + {self.n - self.positive:,} {self.unit}"


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One row as printed; None where the table is silent.

    intervals: by measure, as printed, at `level`. cases: of every unit the paper states (patients,
    images). source: where the row is printed, when a paper prints it in several places.
    """

    name: str
    sensitivity: Printed | None = None
    specificity: Printed | None = None
    accuracy: Printed | None = None
    ppv: Printed | None = None
    npv: Printed | None = None
    auc: Printed | None = None
    intervals: Mapping[str, tuple[Printed, Printed]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    cases: tuple[Cases, ...] = ()
    source: str = ""
    level: float = 0.95

    def __post_init__(self) -> None:
        unknown = set(self.intervals) - set(MEASURES)
        if unknown or any(low.value > high.value for low, high in self.intervals.values()):
            raise ValueError(f"intervals {dict(self.intervals)}: expected low to high of a measure")
        if len({c.unit for c in self.cases}) != len(self.cases):
            raise ValueError("one unit of cases is stated twice")
        object.__setattr__(self, "intervals", MappingProxyType(dict(self.intervals)))

    @property
    def printed(self) -> dict[str, Printed]:
        """The measures that are printed, by name."""
        found = {name: getattr(self, name) for name in MEASURES}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def rates(self) -> tuple[Printed, Printed] | None:
        """Sensitivity and specificity, or None when one is missing."""
        if self.sensitivity is None or self.specificity is None:
            return None
        return self.sensitivity, self.specificity


# ------------------------------------------------------------------ what follows


@dataclass(frozen=True, slots=True)
class WidthCheck:
    """How many cases an interval's width stands for.

    implied: number of cases of its denominator (for an AUC: of both classes), lowest and highest
    given rounding. stated: that number by unit. fits: units within a factor of two. expected: for
    an AUC, the Hanley-McNeil interval of the stated cases by unit (of one operating point: Wald).
    """

    measure: str
    implied: tuple[int, int]
    stated: dict[str, int]
    fits: tuple[str, ...]
    expected: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class TableAudit:
    """What follows from a row.

    prevalence: implied share of positive cases by the measure it follows from ("ppv", "npv",
    "accuracy"), from the printed values; absent where none follows. prevalence_range: the same as
    (low, high) given rounding. whole_numbers: by unit, whether whole numbers of the stated cases
    give the printed shares. words: one sentence per finding.
    """

    name: str
    source: str
    prevalence: dict[str, float]
    prevalence_range: dict[str, Interval]
    whole_numbers: dict[str, bool]
    widths: tuple[WidthCheck, ...]
    findings: tuple[Finding, ...]
    words: tuple[str, ...]

    @property
    def consistent(self) -> bool:
        """No finding that one pooled table could not explain."""
        return not set(self.findings) & _IMPOSSIBLE


@dataclass(frozen=True, slots=True)
class SourceNote:
    """Two places of a paper that print one row differently."""

    names: tuple[str, ...]
    sources: tuple[str, str]
    finding: Finding
    words: str


Note = tuple[Finding, str]


def audit_row(row: PublishedRow) -> TableAudit:
    """Checks one row.

    >>> row = PublishedRow("B-mode", *map(Printed, (0.750, 0.770, 0.745, 0.734, 0.623)))
    >>> [f.value for f in audit_row(row).findings]
    ['accuracy-outside', 'prevalence-disagrees']
    """
    exact, ranges = _prevalences(row)
    whole = {c.unit: _possible(row, c) for c in row.cases}
    single = _single_point(row)
    widths = tuple(_width(row, m, single) for m in row.intervals if _has_width(row, m))
    notes = [
        *_accuracy_notes(row),
        *_prevalence_notes(row, ranges),
        *_whole_number_notes(row, whole),
        *_auc_notes(row, single),
        *(note for m in row.intervals for note in _interval_notes(row, m)),
    ]
    lopsided = [f for f, _ in notes].count(Finding.LOPSIDED_INTERVAL) > 0
    notes += [] if lopsided else _width_notes(row, widths)
    notes += [] if single else _mixed_notes(row, exact, widths)
    return TableAudit(
        row.name,
        row.source,
        exact,
        ranges,
        whole,
        widths,
        tuple(f for f, _ in notes),
        tuple(w for _, w in notes),
    )


# ------------------------------------------------------------------ prevalence


def prevalence_from_ppv(sensitivity: float, specificity: float, ppv: float) -> float:
    """Bayes' rule solved for the prevalence.

    Raises: ZeroDivisionError where any prevalence fits (no call can be positive).
    """
    false = ppv * (1 - specificity)
    return false / (false + sensitivity * (1 - ppv))


def prevalence_from_npv(sensitivity: float, specificity: float, npv: float) -> float:
    """Bayes' rule for negative calls; as `prevalence_from_ppv`."""
    true = specificity * (1 - npv)
    return true / (true + npv * (1 - sensitivity))


def prevalence_from_accuracy(sensitivity: float, specificity: float, accuracy: float) -> float:
    """Accuracy is the mean of sensitivity and specificity weighted by prevalence, solved for it.

    Below 0 or above 1 if the accuracy lies outside the two.
    Raises: ZeroDivisionError if sensitivity equals specificity.
    """
    return (accuracy - specificity) / (sensitivity - specificity)


def _prevalences(row: PublishedRow) -> tuple[dict[str, float], dict[str, Interval]]:
    exact: dict[str, float] = {}
    ranges: dict[str, Interval] = {}
    if row.rates is None:
        return exact, ranges
    for name, solve in (
        ("ppv", prevalence_from_ppv),
        ("npv", prevalence_from_npv),
        ("accuracy", prevalence_from_accuracy),
    ):
        value = row.printed.get(name)
        corners = None if value is None else _corners((*row.rates, value), solve)
        if value is None or corners is None:
            continue
        ranges[name] = corners
        point = solve(row.rates[0].value, row.rates[1].value, value.value)
        if 0 <= point <= 1:
            exact[name] = point
    return exact, ranges


def _corners(
    values: tuple[Printed, Printed, Printed], solve: Callable[[float, float, float], float]
) -> Interval | None:
    """Prevalences that some unrounded values give, or None if there are none or any would do.

    Each formula rises or falls in every argument, so its extremes lie at corners of the box.
    """
    if solve is prevalence_from_accuracy and values[0].meets(values[1]):
        return None  # the denominator may be 0: every prevalence fits, or none
    found: list[float] = []
    for corner in product(*(v.range for v in values)):
        try:
            found.append(solve(*corner))
        except ZeroDivisionError:
            return None
    low, high = max(0.0, min(found)), min(1.0, max(found))
    return (low, high) if low <= high else None


def _accuracy_notes(row: PublishedRow) -> list[Note]:
    if row.accuracy is None or row.rates is None:
        return []
    low, high = sorted(row.rates, key=lambda p: p.value)
    value = row.accuracy
    if low.value - _ROUNDING <= value.value <= high.value + _ROUNDING:
        return []
    where = f"accuracy {value.value:.3f} lies outside {low.value:.3f} to {high.value:.3f}"
    # The accuracy and the nearer bound may each be off by half a digit.
    if value.meets(low if value.value < low.value else high):
        return [(Finding.ACCURACY_BORDERLINE, f"{where}, by no more than rounding")]
    return [
        (
            Finding.ACCURACY_OUTSIDE,
            f"{where} (sensitivity, specificity): impossible for one pooled table",
        )
    ]


def _prevalence_notes(row: PublishedRow, ranges: dict[str, Interval]) -> list[Note]:
    notes: list[Note] = []
    low = max((r[0] for r in ranges.values()), default=-inf)
    high = min((r[1] for r in ranges.values()), default=inf)
    listed = ", ".join(
        f"{measure_word(name)} {r[0]:.3f} to {r[1]:.3f}" for name, r in ranges.items()
    )
    if low > high + _ROUNDING:
        words = f"implied shares of positive cases differ: {listed}"
        return [(Finding.PREVALENCE_DISAGREES, words)]
    stated = {c.words: c.share for c in row.cases if c.share is not None}
    if not stated or not ranges:
        return notes
    off = {words: max(low - share, share - high) for words, share in stated.items()}
    if min(off.values()) > _ROUNDING:
        other = min(max(low - 1 + s, 1 - s - high) for s in stated.values())
        hint = "; the other class fits better as positive" if other < min(off.values()) else ""
        shares = ", ".join(f"{share:.3f} ({words})" for words, share in stated.items())
        words = f"implied share of positive cases ({listed}) is not the stated {shares}{hint}"
        notes.append((Finding.POSITIVE_SHARE_DIFFERS, words))
    return notes


# ------------------------------------------------------------------ whole numbers


def _possible(row: PublishedRow, cases: Cases) -> bool:
    """Whether whole numbers of these cases give every printed share."""
    if cases.positive is not None:
        return _table_exists(row, cases.positive, cases.n - cases.positive)
    if cases.n > _MOST_CASES:
        return True
    _, ranges = _prevalences(row)
    low = max((r[0] for r in ranges.values()), default=0.0)
    high = min((r[1] for r in ranges.values()), default=1.0)
    first, last = max(1, floor(low * cases.n)), min(cases.n - 1, ceil(high * cases.n))
    return any(_table_exists(row, k, cases.n - k) for k in range(first, last + 1))


def _table_exists(row: PublishedRow, n_pos: int, n_neg: int) -> bool:
    """Whether some true positives and true negatives round to all that is printed.

    For given true positives each share bounds the true negatives from below and above.
    """
    for tp in _counts(row.sensitivity, n_pos):
        fn = n_pos - tp
        low, high = _bounds(row.specificity, n_neg)
        if row.accuracy is not None:
            a, b = row.accuracy.range
            low, high = max(low, a * (n_pos + n_neg) - tp), min(high, b * (n_pos + n_neg) - tp)
        if row.ppv is not None:
            a, b = row.ppv.range
            most = tp * (1 - a) / a if a > 0 else inf  # false positives
            least = tp * (1 - b) / b if b > 0 else (0.0 if tp == 0 else inf)
            low, high = max(low, n_neg - most), min(high, n_neg - least)
        if row.npv is not None:
            a, b = row.npv.range
            low = max(low, a * fn / (1 - a) if a < 1 else (0.0 if fn == 0 else inf))
            high = min(high, b * fn / (1 - b) if b < 1 else inf)
        slack = _ROUNDING * n_neg
        high = min(high, n_neg) + slack
        if low <= high and high >= 0 and ceil(low - slack) <= floor(high):
            return True
    return False


def _bounds(share: Printed | None, n: int) -> Interval:
    low, high = (0.0, 1.0) if share is None else share.range
    return low * n, high * n


def _counts(share: Printed | None, n: int) -> range:
    """Whole numbers of n that a share may have been rounded from."""
    low, high = _bounds(share, n)
    return range(ceil(low - _ROUNDING * n), floor(high + _ROUNDING * n) + 1)


def _whole_number_notes(row: PublishedRow, whole: dict[str, bool]) -> list[Note]:
    out = [c for c in row.cases if not whole[c.unit]]
    if not out:
        return []
    words = " and no ".join(f"whole numbers of {c.words}" for c in out)
    words = f"no {words} give these shares{_alone(row, out)}"
    fit = [c.words for c in row.cases if whole[c.unit]]
    if fit:
        return [(Finding.OTHER_UNIT, f"{words}; {' and '.join(fit)} can")]
    return [(Finding.NO_WHOLE_NUMBERS, f"{words}: impossible for one pooled table of them")]


def _alone(row: PublishedRow, out: Sequence[Cases]) -> str:
    """Which printed rates alone are no share of the stated cases."""
    found: list[str] = []
    for c in out:
        for name, n in (
            ("sensitivity", c.positive),
            ("specificity", c.negative),
            ("accuracy", c.n),
        ):
            value = row.printed.get(name)
            if value is not None and n is not None and not _counts(value, n):
                found.append(f"{name} {value.value:.3f} is no share of {n:,} {c.unit}")
    return f" ({'; '.join(found)})" if found else ""


# ------------------------------------------------------------------ AUC


def _single_point(row: PublishedRow) -> bool:
    """Whether the AUC is the mean of sensitivity and specificity."""
    if row.auc is None or row.rates is None:
        return False
    first, second = row.rates
    mean = Printed((first.value + second.value) / 2, (first.half_step + second.half_step) / 2)
    return row.auc.meets(mean)


def _auc_notes(row: PublishedRow, single: bool) -> list[Note]:
    if row.auc is None or row.rates is None:
        return []
    if single:
        words = (
            f"AUC {row.auc.value:.3f} is the mean of sensitivity and specificity: one operating "
            "point, not comparable with the area under a full curve"
        )
        return [(Finding.SINGLE_POINT_AUC, words)]
    # A rising curve through the operating point cannot enclose less or more than these.
    (se_low, se_high), (sp_low, sp_high) = (r.range for r in row.rates)
    least, most = se_low * sp_low, 1 - (1 - se_high) * (1 - sp_high)
    low, high = row.auc.range
    if high < least - _ROUNDING or low > most + _ROUNDING:
        words = (
            f"AUC {row.auc.value:.3f} lies outside {least:.3f} to {most:.3f}, what a curve through "
            "this sensitivity and specificity can enclose"
        )
        return [(Finding.AUC_IMPOSSIBLE, words)]
    return []


# ------------------------------------------------------------------ intervals


def _interval_notes(row: PublishedRow, measure: str) -> list[Note]:
    value = row.printed.get(measure)
    if value is None:
        return []
    low, high = row.intervals[measure]
    shown = f"{measure_word(measure)} {value.value:.3f} ({low.value:.3f} to {high.value:.3f})"
    if low.range[0] > value.range[1] + _ROUNDING or high.range[1] < value.range[0] - _ROUNDING:
        return [(Finding.VALUE_OUTSIDE_INTERVAL, f"{shown}: the value lies outside its interval")]
    balance = _balance(value, low, high)
    if balance < _LOPSIDED:
        words = (
            f"{shown}: one side of the interval is at most {balance:.2f} of the other, on the "
            "plain and on the logit scale"
        )
        return [(Finding.LOPSIDED_INTERVAL, words)]
    return []


def _balance(value: Printed, low: Printed, high: Printed) -> float:
    """Shorter over longer side of the interval, as even as rounding and scale allow, at most 1.

    1 where a bound may be cut off at 0 or 1.
    """
    if low.range[0] <= 0 or high.range[1] >= 1:
        return 1.0
    best = 0.0
    for scale in (lambda p: p, lambda p: log(p / (1 - p))):
        sides: list[Interval] = []
        for v, a, b in product(value.range, low.range, high.range):
            v = min(max(v, a), max(a, b))
            sides.append((scale(v) - scale(a), scale(max(a, b)) - scale(v)))
        # Between a corner with the one side shorter and one with the other lies an even interval.
        if any(x <= y for x, y in sides) and any(x >= y for x, y in sides):
            return 1.0
        best = max(best, *(min(s) / max(s) for s in sides))
    return best


def _has_width(row: PublishedRow, measure: str) -> bool:
    value, (low, high) = row.printed.get(measure), row.intervals[measure]
    return value is not None and 0 < value.value < 1 and high.value > low.value


def _width(row: PublishedRow, measure: str, single: bool) -> WidthCheck:
    """The number of cases an interval stands for; the class ratio is the stated one, or 1."""
    low, high = row.intervals[measure]
    width, slack = high.value - low.value, low.half_step + high.half_step
    z = normal_quantile(row.level)

    def implied(cases: Cases | None, wide: float) -> int:
        if wide <= 0:
            return 10**9
        return _smallest(lambda n: 2 * z * sqrt(_variance(row, measure, n, cases, single)) <= wide)

    shapes: list[Cases | None] = [c for c in row.cases if c.positive is not None] or [None]
    ends = [implied(c, width + s) for c in shapes for s in (slack, -slack)]
    stated = {c.unit: n for c in row.cases if (n := _denominator(row, measure, c)) is not None}
    span = min(ends), max(ends)
    fits = [
        unit
        for unit, n in stated.items()
        if span[0] / _WIDTH_FACTOR <= n <= span[1] * _WIDTH_FACTOR
    ]
    expected: dict[str, Interval] = {}
    value = row.printed[measure].value
    if measure == "auc":
        for c in (c for c in row.cases if c.positive is not None):
            half = z * sqrt(_variance(row, measure, c.n, c, single))
            expected[c.unit] = max(0.0, value - half), min(1.0, value + half)
    return WidthCheck(measure, span, stated, tuple(fits), expected)


def _variance(row: PublishedRow, measure: str, n: int, cases: Cases | None, single: bool) -> float:
    """Variance of a measure with n cases in its denominator, in the class ratio of `cases`."""
    value = row.printed[measure].value
    if measure != "auc":
        return value * (1 - value) / n
    share = 0.5 if cases is None or cases.share is None else cases.share
    n_pos = max(1, round(n * share))
    n_neg = max(1, n - n_pos)
    if single and row.rates is not None:
        se, sp = (r.value for r in row.rates)
        return (se * (1 - se) / n_pos + sp * (1 - sp) / n_neg) / 4
    return auc_variance(value, n_pos, n_neg, AucModel.HANLEY_MCNEIL)


def _smallest(enough: Callable[[int], bool]) -> int:
    """The smallest number of cases, at least 2, that is enough."""
    high = 2
    while not enough(high) and high < 10**9:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _denominator(row: PublishedRow, measure: str, cases: Cases) -> int | None:
    """How many of the cases a measure is a share of; None where the paper does not say."""
    if measure in ("auc", "accuracy"):
        return cases.n
    if cases.positive is None:
        return None
    n_pos, n_neg = cases.positive, cases.n - cases.positive
    if measure in ("sensitivity", "specificity"):
        return n_pos if measure == "sensitivity" else n_neg
    if row.rates is None:
        return None
    se, sp = (r.value for r in row.rates)
    called = se * n_pos + (1 - sp) * n_neg
    return max(1, round(called if measure == "ppv" else cases.n - called))


def _width_notes(row: PublishedRow, widths: Sequence[WidthCheck]) -> list[Note]:
    notes: list[Note] = []
    for w in widths:
        value = row.printed[w.measure].value
        # Wald's width says little where few cases are of one kind.
        few = w.measure != "auc" and min(value, 1 - value) * w.implied[1] < _FEW
        if not w.stated or w.fits or few:
            continue
        stated = ", ".join(f"{n:,} {unit}" for unit, n in w.stated.items())
        words = (
            f"the interval of the {measure_word(w.measure)} is as wide as that of "
            f"{w.implied[0]:,} to {w.implied[1]:,} cases; stated: {stated}"
        )
        notes.append((Finding.WIDTH_DISAGREES, words))
    return notes


def _mixed_notes(
    row: PublishedRow, exact: dict[str, float], widths: Sequence[WidthCheck]
) -> list[Note]:
    """Whether the AUC's interval is that of one unit and the predictive values of another."""
    auc = next((w for w in widths if w.measure == "auc"), None)
    values = [exact[m] for m in ("ppv", "npv") if m in exact]
    shares = {c.unit: c.share for c in row.cases if c.share is not None}
    if auc is None or len(auc.fits) != 1 or len(values) != 2 or len(shares) < 2:
        return []
    mean = sum(values) / 2
    near = [unit for unit, share in shares.items() if abs(share - mean) <= _NEAR_SHARE]
    if len(near) != 1 or near[0] == auc.fits[0]:
        return []
    words = (
        f"the interval of the AUC is as wide as that of the {auc.fits[0]}, but the predictive "
        f"values imply {mean:.3f} positive cases, as among the {near[0]} ({shares[near[0]]:.3f}; "
        f"{auc.fits[0]} {shares[auc.fits[0]]:.3f}): two units in one row"
    )
    return [(Finding.UNITS_MIXED, words)]


# ------------------------------------------------------------------ two places of one paper


def compare_sources(rows: Sequence[PublishedRow]) -> tuple[SourceNote, ...]:
    """Rows of one name that different places of a paper print differently, and swapped pairs."""
    by_name: dict[str, list[PublishedRow]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    notes: list[SourceNote] = []
    for name, same in by_name.items():
        for one, two in combinations(same, 2):
            apart = _apart(one, two)
            if apart:
                words = f"{name}: {one.source} and {two.source} differ in {', '.join(apart)}"
                places = one.source, two.source
                notes.append(SourceNote((name,), places, Finding.SOURCES_DISAGREE, words))
    for first, second in combinations(by_name, 2):
        for a, b in product(by_name[first], by_name[first]):
            for c, d in product(by_name[second], by_name[second]):
                if a.source < b.source and c.source == a.source and d.source == b.source:
                    notes += _swapped((a, b), (c, d))
    return tuple(notes)


def _apart(one: PublishedRow, two: PublishedRow) -> list[str]:
    found: list[str] = []
    for name in MEASURES:
        pairs = [(one.printed.get(name), two.printed.get(name))]
        if name in one.intervals and name in two.intervals:
            pairs += zip(one.intervals[name], two.intervals[name], strict=True)
        for k, (x, y) in enumerate(pairs):
            if x is not None and y is not None and not x.meets(y):
                label = measure_word(name) + ("", " lower bound", " upper bound")[k]
                found.append(f"{label} ({x.value:.3f}, {y.value:.3f})")
    return found


def _swapped(
    first: tuple[PublishedRow, PublishedRow], second: tuple[PublishedRow, PublishedRow]
) -> list[SourceNote]:
    names: list[str] = []
    for name in MEASURES:
        a, b, c, d = (r.printed.get(name) for r in (*first, *second))
        if a is None or b is None or c is None or d is None:
            continue
        if a.meets(d) and b.meets(c) and not a.meets(b):
            names.append(measure_word(name))
    if not names:
        return []
    one, two = first[0], second[0]
    places = first[0].source, first[1].source
    words = (
        f"{one.name} and {two.name} have changed places between {places[0]} and {places[1]}: "
        f"{', '.join(names)}"
    )
    return [SourceNote((one.name, two.name), places, Finding.SWAPPED, words)]
