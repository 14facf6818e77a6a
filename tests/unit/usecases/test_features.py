"""Names of facts instead of "perfusion"; what no study knows is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.study import Study
from renalkit.errors import ConfigError
from renalkit.usecases.experiment import Experiment, SystemSettings
from renalkit.usecases.features import with_named_features

OWN = {"perfusion_lesion_pe": 3.0, "perfusion_cortex_pe": 4.0}
COMPARED = {"perfusion_lesion_over_cortex_pe": 0.75, "perfusion_lesion_minus_cortex_ttp": 2.0}


CHOSEN = ("perfusion_lesion_minus_cortex_ttp", "log perfusion_lesion_over_cortex_pe")


def cohort(*facts: dict[str, float | str]) -> Cohort:
    studies = []
    for number, known in enumerate(facts):
        pixels = np.full((1, 8, 8), number, np.uint8)
        source = Source(f"{number}" * 64, f"f-{number}", "picture")
        clip = Clip(pixels, pixel_sha256(pixels), Mode.B, source)
        name = f"{number:020x}"
        studies.append(Study(f"s-{name}", f"p-{name}", (clip,), covariates=known))
    return Cohort("c", ClassTask(("benign", "malignant"), "malignant"), tuple(studies))


def named(features: tuple[str, ...], where: Cohort) -> tuple[str, ...]:
    system = SystemSettings(name="mufnet-2022", features=features)
    experiment = Experiment(name="e", cohort=Path("c"), systems=(system,))
    return with_named_features(experiment, where).systems[0].features


def test_perfusion_is_what_compares_mass_and_cortex() -> None:
    found = named(("perfusion", "age_years"), cohort({**OWN, **COMPARED, "age_years": 50}))
    assert found == (*CHOSEN, "age_years")


def test_instants_are_compared_by_difference_and_all_else_by_ratio() -> None:
    other = {"perfusion_lesion_minus_cortex_mtt": 3.0, "perfusion_lesion_over_cortex_ttp": 1.2}
    assert named(("perfusion",), cohort({**COMPARED, **other})) == CHOSEN


def test_a_logarithm_is_of_a_number_above_zero() -> None:
    assert named(("log age_years",), cohort({"age_years": 50}, {})) == ("log age_years",)
    assert cohort({"age_years": 50.0}).studies[0].number("log age_years") == pytest.approx(3.912023)
    for facts in ({"age_years": 0.0}, {"age_years": -1.0}, {"age_years": "old"}, {}):
        with pytest.raises(ConfigError, match="no study knows 'log age_years' as a number"):
            named(("log age_years",), cohort(facts))


def test_without_a_cortex_it_is_the_figures_of_the_mass() -> None:
    assert named(("perfusion",), cohort({"perfusion_lesion_pe": 3.0})) == ("perfusion_lesion_pe",)


def test_figures_that_most_studies_do_not_know_are_left_out() -> None:
    few = {"perfusion_lesion_over_cortex_mtt": 1.0}
    where = cohort({**COMPARED, **few}, COMPARED, COMPARED)
    assert named(("perfusion",), where) == CHOSEN
    assert named(tuple(few), where) == tuple(few)


def test_systems_without_numbers_stay_as_they_are() -> None:
    assert named((), cohort({})) == ()


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (("perfusion",), "no figures of contrast curves"),
        (("perfusion_lesion_pe",), r"no study knows 'perfusion_lesion_pe' .*\(age_years\)"),
        (("sex",), "no study knows 'sex' as a number"),
    ],
)
def test_what_no_study_knows_is_refused(features: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        named(features, cohort({"age_years": 50.0, "sex": "F"}))
