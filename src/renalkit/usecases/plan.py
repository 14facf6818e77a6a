"""How many patients does a study of an AUC need, or what power has it with those it has?"""

from __future__ import annotations

from dataclasses import dataclass

from renalkit.errors import ConfigError
from renalkit.metrics.inference import normal_quantile
from renalkit.metrics.sample_size import (
    AucDesign,
    AucModel,
    AucPair,
    SampleSize,
    auc_correlation,
    auc_variance,
    n_for_auc,
    n_for_difference,
    n_for_non_inferiority,
    n_for_width,
    power_for_auc,
    power_for_difference,
    power_for_non_inferiority,
)
from renalkit.usecases.results import Json


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What the study expects and asks. One of width, null and against says what is asked.

    auc: expected. width: half width of its interval. null: AUC to differ from. against: AUC of a
    second system; with margin, non-inferiority of the first. correlation: of the two estimated
    AUCs; score_correlation: of the two systems' scores within a class, from which it follows; both
    None: two groups of patients, each of the size that is told. patients: number at hand, in place
    of power. positive_share: of positive patients.
    """

    auc: float
    width: float | None = None
    null: float | None = None
    against: float | None = None
    margin: float | None = None
    correlation: float | None = None
    score_correlation: float | None = None
    patients: int | None = None
    positive_share: float = 0.5
    power: float = 0.8
    level: float = 0.95
    model: str = AucModel.EMPIRICAL.value

    def problems(self) -> list[str]:
        """What does not go together."""
        asked = [v for v in (self.width, self.null, self.against) if v is not None]
        found: list[str] = []
        if len(asked) != 1:
            found.append("one of --width, --null and --against says what is asked")
        if self.margin is not None and self.against is None:
            found.append("--margin: needs --against, the AUC that must nearly be reached")
        if self.correlation is not None and self.score_correlation is not None:
            found.append("--correlation and --score-correlation: one of them")
        if self.against is None and (self.correlation, self.score_correlation) != (None, None):
            found.append("--correlation: needs --against, the AUC of the second system")
        if not 0 < self.positive_share < 1:
            found.append(f"--positive-share {self.positive_share:g}: expected above 0 and below 1")
        if self.model not in [m.value for m in AucModel]:
            known = ", ".join(m.value for m in AucModel)
            found.append(f"--model {self.model!r}: expected one of {known}")
        return found


def plan_study(request: PlanRequest) -> Json:
    """Patients of each class that the study needs, or the power of those at hand, as JSON.

    Raises ConfigError for values that do not go together or are out of range; StatisticUndefined
    when no number of patients is enough.
    """
    problems = request.problems()
    if problems:
        raise ConfigError(problems)
    try:
        return _planned(request)
    except ValueError as error:
        raise ConfigError([str(error)]) from error


def _planned(request: PlanRequest) -> Json:
    r = request
    ratio = (1 - r.positive_share) / r.positive_share
    design = AucDesign(r.power, r.level, ratio, AucModel(r.model))
    pair = _pair(r, ratio)
    if r.patients is None:
        size = _needed(r, design, pair)
    else:
        n_positive = round(r.patients * r.positive_share)
        size = _at_hand(r, design, pair, (n_positive, r.patients - n_positive))
    return {
        "schema": 1,
        "question": _question(r),
        "auc": r.auc,
        "width": r.width,
        "null": r.null,
        "against": r.against,
        "margin": r.margin,
        "correlation": None if pair is None else pair.correlation,
        "groups": 2 if pair is not None and r.correlation is r.score_correlation is None else 1,
        "positive_share": r.positive_share,
        "level": r.level,
        "power_wanted": None if r.width is not None or r.patients is not None else r.power,
        "model": r.model,
        "n": size.n,
        "n_positive": size.n_positive,
        "n_negative": size.n_negative,
        "unit": "patient",
        "reached": size.reached,
        "reached_is": "half width" if r.width is not None else "power",
        "method": "normal approximation, Wald with the variance under the alternative",
    }


def _question(request: PlanRequest) -> str:
    if request.width is not None:
        return "interval of one AUC"
    if request.null is not None:
        return "one AUC against a value"
    return "difference of two AUCs" if request.margin is None else "non-inferiority of two AUCs"


def _pair(request: PlanRequest, ratio: float) -> AucPair | None:
    r = request
    if r.against is None:
        return None
    correlation = r.correlation or 0.0
    if r.score_correlation is not None:
        within = r.score_correlation
        correlation = auc_correlation((r.auc, r.against), within, within, ratio)
    return AucPair(r.auc, r.against, correlation)


def _needed(request: PlanRequest, design: AucDesign, pair: AucPair | None) -> SampleSize:
    if request.width is not None:
        return n_for_width(request.auc, request.width, design)
    if pair is None:
        return n_for_auc(request.auc, request.null or 0.0, design)
    if request.margin is None:
        return n_for_difference(pair, design)
    return n_for_non_inferiority(pair, request.margin, design)


def _at_hand(
    request: PlanRequest, design: AucDesign, pair: AucPair | None, sizes: tuple[int, int]
) -> SampleSize:
    """The same sizes with what they reach."""
    if min(sizes) < 2:
        raise ValueError(f"{sizes[0]} positive and {sizes[1]} negative patients: too few")
    if request.width is not None:
        variance = auc_variance(request.auc, *sizes, design.model)
        return SampleSize(*sizes, normal_quantile(design.level) * variance**0.5)
    if pair is None:
        return SampleSize(*sizes, power_for_auc(request.auc, request.null or 0.0, *sizes, design))
    if request.margin is None:
        return SampleSize(*sizes, power_for_difference(pair, *sizes, design))
    power = power_for_non_inferiority(pair, request.margin, *sizes, design)
    return SampleSize(*sizes, power)


def plan_words(found: Json) -> str:
    """The plan for a terminal."""
    r = found
    asked = {
        "interval of one AUC": "interval of an AUC of {auc:g}",
        "one AUC against a value": "AUC {auc:g} against {null}",
        "difference of two AUCs": "AUC {auc:g} against {against}, correlation {correlation:.2f}",
        "non-inferiority of two AUCs": "AUC {auc:g} at most {margin} below {against}, correlation "
        "{correlation:.2f}",
    }[r["question"]].format(**{k: v for k, v in r.items() if v is not None})
    each = " in each of two groups" if r["groups"] == 2 else ""
    reached = f"{r['reached_is']} {r['reached']:.3f}"
    return (
        f"{asked}: {r['n']:,} patients{each}, {r['n_positive']:,} positive and "
        f"{r['n_negative']:,} negative; {reached} at level {100 * r['level']:g} %\n"
        f"{r['method']}; scores {r['model']}. Frames of one patient count once."
    )
