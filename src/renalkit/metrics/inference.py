"""How sure is a number? The form every number shown to a user has, and intervals of proportions.

An Estimate carries its value, interval, level, unit of analysis, number of units and the method,
so that no figure is printed without them. Intervals of AUCs are in `auc_inference`, those by
resampling patients in `bootstrap`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, nan, sqrt

from scipy import special

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval: `value`, `low` to `high` at `level`, from `n` units.

    unit: what n counts. method: how the interval was made, in words for a table footer. low and
    high are both NaN where there is a value but no interval; method then says why.
    """

    value: float
    low: float
    high: float
    level: float
    n: int
    unit: Unit
    method: str

    def __post_init__(self) -> None:
        if isnan(self.value):
            raise ValueError("an estimate needs a value; an undefined statistic raises instead")
        if isnan(self.low) != isnan(self.high) or self.low > self.high:
            raise ValueError(f"interval {self.low} to {self.high} is not one")
        check_level(self.level)
        if self.n < 1 or not self.method:
            raise ValueError("an estimate states how many units it rests on, and its method")

    def text(self, digits: int = 3) -> str:
        """For a table cell.

        >>> Estimate(0.8771, 0.8302, 0.9251, 0.95, 181, Unit.PATIENT, "DeLong").text()
        '0.877 (0.830 to 0.925)'
        """
        if isnan(self.low):
            return f"{self.value:.{digits}f}"
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"

    @property
    def basis(self) -> str:
        """What the number rests on, for a table footer: "n = 181 patients, 95 % CI: DeLong"."""
        plural = "" if self.n == 1 else "s"
        return f"n = {self.n} {self.unit.word}{plural}, {100 * self.level:g} % CI: {self.method}"


@dataclass(frozen=True, slots=True)
class Proportion:
    """k of n independent units; undefined (value NaN) when n is 0."""

    k: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.k <= self.n:
            raise ValueError(f"{self.k} of {self.n} is not a proportion")

    @property
    def defined(self) -> bool:
        return self.n > 0

    @property
    def value(self) -> float:
        return self.k / self.n if self.n else nan

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Clopper-Pearson interval; (NaN, NaN) when undefined."""
        return clopper_pearson(self.k, self.n, level) if self.n else (nan, nan)

    def estimate(self, unit: Unit = Unit.PATIENT, level: float = 0.95) -> Estimate:
        """The proportion with its exact interval.

        Raises: StatisticUndefined if n is 0, or for frames: frames of one patient are not
        independent, and an interval that counts them as such is several times too narrow.
        """
        if not self.n:
            raise StatisticUndefined(
                "0 of 0: the proportion does not exist",
                expected="at least one unit in the denominator",
            )
        refuse_frames(unit)
        low, high = self.interval(level)
        return Estimate(self.value, low, high, level, self.n, unit, "Clopper-Pearson")


@dataclass(frozen=True, slots=True)
class F1Score:
    """F1 = 2 k / (n + k) of k true positives among n cases that are, or were called, positive.

    F1 rises steadily with the proportion k/n (the Jaccard index of the positive class), so the
    exact interval of k/n, mapped the same way, is an exact interval of F1 given n.
    """

    k: int
    n: int

    @property
    def defined(self) -> bool:
        return self.n > 0

    @property
    def value(self) -> float:
        return 2 * self.k / (self.n + self.k) if self.n else nan

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Clopper-Pearson of k/n mapped to F1; (NaN, NaN) when undefined."""
        low, high = Proportion(self.k, self.n).interval(level)
        return 2 * low / (1 + low), 2 * high / (1 + high)

    def estimate(self, unit: Unit = Unit.PATIENT, level: float = 0.95) -> Estimate:
        """F1 with its interval; refuses as `Proportion.estimate` does."""
        Proportion(self.k, self.n).estimate(unit, level)  # the same refusals
        low, high = self.interval(level)
        method = "Clopper-Pearson of the Jaccard index, mapped to F1"
        return Estimate(self.value, low, high, level, self.n, unit, method)


def clopper_pearson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a proportion: covers the truth at least `level` of the time.

    Clopper and Pearson 1934, Biometrika 26:404. k = 0 gives low 0, k = n gives high 1.
    Raises: ValueError if n < 1, k outside 0..n or level outside (0, 1).

    >>> low, high = clopper_pearson(0, 10)
    >>> low, round(high, 6)
    (0.0, 0.308497)
    """
    _check_counts(k, n, level)
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(special.betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion: covers the truth `level` of the time on average.

    Wilson 1927, JASA 22:209. Shorter than Clopper-Pearson, may cover less at single proportions.
    Raises: as `clopper_pearson`.
    """
    _check_counts(k, n, level)
    z = normal_quantile(level)
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At k = 0 and k = n the bound is exactly 0 or 1; the formula misses it by rounding.
    return (0.0 if k == 0 else centre - half), (1.0 if k == n else centre + half)


def normal_quantile(level: float) -> float:
    """z of a two-sided interval at that level: 1.959964 for 0.95."""
    check_level(level)
    return float(special.ndtri(0.5 + level / 2))


def check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level {level}: expected a number between 0 and 1, such as 0.95")


def refuse_frames(unit: Unit) -> None:
    """Methods for independent units refuse frames (100 patients x 60 frames: SE 6 times too small).

    Raises: StatisticUndefined.
    """
    if unit is Unit.FRAME:
        raise StatisticUndefined(
            "an interval that treats frames as independent",
            expected="one row per patient or lesion",
            remedy="aggregate to patients first, or use the clustered AUC or the cluster bootstrap",
        )


def _check_counts(k: int, n: int, level: float) -> None:
    check_level(level)
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"{k} of {n}: expected 0 <= k <= n and n >= 1")
