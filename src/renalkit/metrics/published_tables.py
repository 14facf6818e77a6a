"""Can the numbers of a printed results table come from one pooled set of cases?

From sensitivity, specificity and any of PPV, NPV and accuracy the share of positive cases
(prevalence) follows. The shares must agree with one another, and the accuracy must lie between
sensitivity and specificity. Every printed number stands for the interval it was rounded from, so
a finding means that no unrounded table could have been printed this way.

A finding is a question to the authors, not a verdict: averaging over folds also breaks these
identities, and a table may count another class as positive than its neighbour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from math import inf, isfinite

Interval = tuple[float, float]


class Finding(StrEnum):
    """What a row of a table shows."""

    ACCURACY_OUTSIDE = "accuracy-outside"
    ACCURACY_BORDERLINE = "accuracy-borderline"
    PREVALENCE_DISAGREES = "prevalence-disagrees"
    SINGLE_POINT_AUC = "single-point-auc"
    POSITIVE_SHARE_DIFFERS = "positive-share-differs"


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One row as printed, as fractions (80.4 % is 0.804); None where the table is silent.

    half_step: half of the last printed digit, 0.0005 for percentages with one decimal.
    auc_half_step: the same for the AUC. positive_share: share of positive cases the paper states.
    """

    name: str
    sensitivity: float
    specificity: float
    accuracy: float | None = None
    ppv: float | None = None
    npv: float | None = None
    auc: float | None = None
    positive_share: float | None = None
    half_step: float = 0.0005
    auc_half_step: float = 0.0005

    def __post_init__(self) -> None:
        printed = (self.sensitivity, self.specificity, self.accuracy, self.ppv, self.npv, self.auc)
        for value in (*printed, self.positive_share):
            if value is not None and not (isfinite(value) and 0 <= value <= 1):
                raise ValueError(f"{value} is not a fraction between 0 and 1; divide percentages")
        if not (0 <= self.half_step < 0.05 and 0 <= self.auc_half_step < 0.05):
            raise ValueError("half of the last printed digit is at least 0 and below 0.05")


@dataclass(frozen=True, slots=True)
class TableAudit:
    """What follows from a row.

    prevalence: implied share of positive cases by the measure it follows from ("ppv", "npv",
    "accuracy"), from the printed values; absent where none follows.
    prevalence_range: the same as (low, high) given rounding. words: one sentence per finding.
    """

    name: str
    prevalence: dict[str, float]
    prevalence_range: dict[str, Interval]
    findings: tuple[Finding, ...]
    words: tuple[str, ...]

    @property
    def consistent(self) -> bool:
        """No finding that one pooled table could not explain."""
        return not set(self.findings) & {Finding.ACCURACY_OUTSIDE, Finding.PREVALENCE_DISAGREES}


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


def audit_row(row: PublishedRow) -> TableAudit:
    """Checks one row.

    >>> audit = audit_row(PublishedRow("B-mode", 0.750, 0.770, 0.745, 0.734, 0.623))
    >>> [f.value for f in audit.findings]
    ['accuracy-outside', 'prevalence-disagrees']
    """
    exact: dict[str, float] = {}
    ranges: dict[str, Interval] = {}
    for name, value, solve in (
        ("ppv", row.ppv, prevalence_from_ppv),
        ("npv", row.npv, prevalence_from_npv),
        ("accuracy", row.accuracy, prevalence_from_accuracy),
    ):
        if value is None:
            continue
        corners = _corners(row, value, solve)
        if corners is None:
            continue
        ranges[name] = corners
        point = solve(row.sensitivity, row.specificity, value)
        if 0 <= point <= 1:
            exact[name] = point
    notes = [*_accuracy_notes(row), *_prevalence_notes(row, ranges), *_auc_notes(row)]
    return TableAudit(
        row.name, exact, ranges, tuple(f for f, _ in notes), tuple(w for _, w in notes)
    )


def _corners(
    row: PublishedRow, value: float, solve: Callable[[float, float, float], float]
) -> Interval | None:
    """Prevalences that some unrounded values give, or None if there are none or any would do.

    Each formula rises or falls in every argument, so its extremes lie at corners of the box.
    """
    h = row.half_step
    if solve is prevalence_from_accuracy and abs(row.sensitivity - row.specificity) <= 2 * h:
        return None  # the denominator may be 0: every prevalence fits, or none
    found: list[float] = []
    for signs in product((-h, h), repeat=3):
        printed = (row.sensitivity, row.specificity, value)
        corner = [min(1.0, max(0.0, v + s)) for v, s in zip(printed, signs, strict=True)]
        try:
            found.append(solve(*corner))
        except ZeroDivisionError:
            return None
    low, high = max(0.0, min(found)), min(1.0, max(found))
    return (low, high) if low <= high else None


def _accuracy_notes(row: PublishedRow) -> list[tuple[Finding, str]]:
    if row.accuracy is None:
        return []
    low, high = sorted((row.sensitivity, row.specificity))
    outside = max(low - row.accuracy, row.accuracy - high)
    if outside <= 1e-12:
        return []
    where = f"accuracy {row.accuracy:.3f} lies outside {low:.3f} to {high:.3f}"
    # The accuracy and the nearer bound may each be off by half a digit.
    if outside <= 2 * row.half_step + 1e-12:
        return [(Finding.ACCURACY_BORDERLINE, f"{where}, by no more than rounding")]
    return [
        (
            Finding.ACCURACY_OUTSIDE,
            f"{where} (sensitivity, specificity): impossible for one pooled table",
        )
    ]


def _prevalence_notes(row: PublishedRow, ranges: dict[str, Interval]) -> list[tuple[Finding, str]]:
    notes: list[tuple[Finding, str]] = []
    low = max((r[0] for r in ranges.values()), default=-inf)
    high = min((r[1] for r in ranges.values()), default=inf)
    listed = ", ".join(f"{name} {r[0]:.3f} to {r[1]:.3f}" for name, r in ranges.items())
    if low > high:
        notes.append(
            (Finding.PREVALENCE_DISAGREES, f"implied shares of positive cases differ: {listed}")
        )
    elif row.positive_share is not None and ranges:
        share = row.positive_share
        off = max(low - share, share - high)
        if off > row.half_step + 1e-12:
            other = max(low - (1 - share), (1 - share) - high)
            hint = "; the other class fits better as positive" if other < off else ""
            words = (
                f"implied share of positive cases ({listed}) is not the stated {share:.3f}{hint}"
            )
            notes.append((Finding.POSITIVE_SHARE_DIFFERS, words))
    return notes


def _auc_notes(row: PublishedRow) -> list[tuple[Finding, str]]:
    if row.auc is None:
        return []
    single = (row.sensitivity + row.specificity) / 2
    if abs(row.auc - single) > row.half_step + row.auc_half_step + 1e-12:
        return []
    words = (
        f"AUC {row.auc:.3f} is the mean of sensitivity and specificity: one operating point, "
        "not comparable with the area under a full curve"
    )
    return [(Finding.SINGLE_POINT_AUC, words)]
