"""Which facts of a cohort are the numbers that an experiment gives a network beside the picture?"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from renalkit.domain.cohort import Cohort
from renalkit.domain.pairs import perfusion_features
from renalkit.domain.study import LOG
from renalkit.errors import ConfigError

if TYPE_CHECKING:
    from renalkit.usecases.experiment import Experiment

PERFUSION = "perfusion"
"""Stands for the figures of the contrast curves that this module chooses."""
LEAST_KNOWN = 0.5
"""Least share of the studies that must know a figure for `PERFUSION` to mean it."""

_RATIO, _DIFFERENCE = "_over_", "_minus_"
_INSTANTS = ("_t0", "_ttp")


def with_named_features(experiment: Experiment, cohort: Cohort) -> Experiment:
    """The experiment with names of facts instead of "perfusion".

    "perfusion" means the figures of the contrast curves that at least half of the studies know: of
    the mass compared with the cortex where there are any, else its own. Each is compared once:
    instants (arrival, peak) by their difference, since when their clock began is arbitrary; amounts
    and durations by the logarithm of their ratio.

    Raises:
        ConfigError: a fact that no study knows as a number, or no figure to stand for.
    """
    if not any(item.features for item in experiment.systems):
        return experiment
    problems: list[str] = []
    systems = [
        item.model_copy(update={"features": _named(item.features, cohort, where, problems)})
        for where, item in ((f"systems.{i}", s) for i, s in enumerate(experiment.systems))
    ]
    if problems:
        raise ConfigError(problems, where=cohort.name)
    return experiment.model_copy(update={"systems": tuple(systems)})


def _named(
    features: tuple[str, ...],
    cohort: Cohort,
    where: str,
    problems: list[str],
) -> tuple[str, ...]:
    found: list[str] = []
    for name in features:
        if name == PERFUSION:
            figures = _figures(cohort)
            if not figures:
                problems.append(
                    f"{where}.features: the cohort has no figures of contrast curves; make it with "
                    "'renalkit ceus cohort' and outlines of the mass, better also of the cortex"
                )
            found += figures
        elif any(study.number(name) is not None for study in cohort.studies):
            found.append(name)
        else:
            known = {n for study in cohort.studies for n in study.numbers}
            offered = ", ".join(sorted(known)) or "none"
            problems.append(f"{where}.features: no study knows '{name}' as a number ({offered})")
    return tuple(dict.fromkeys(found))


def _figures(cohort: Cohort) -> list[str]:
    counted = Counter(name for study in cohort.studies for name in perfusion_features(study))
    usual = sorted(n for n, c in counted.items() if c >= LEAST_KNOWN * len(cohort.studies))
    differences = [n for n in usual if _DIFFERENCE in n and n.endswith(_INSTANTS)]
    ratios = [f"{LOG}{n}" for n in usual if _RATIO in n and not n.endswith(_INSTANTS)]
    return [*differences, *ratios] or usual
