"""Options of the phantom commands: every problem in one message, nothing impossible accepted."""

from dataclasses import replace

import pytest

from renalkit.errors import ConfigError
from renalkit.phantom.ceus.console import Layout
from renalkit.phantom.ct.anatomy import Phase
from renalkit.usecases.phantom_case import plan_settings
from renalkit.usecases.phantom_plans import People, ceus_plan, cohort_plan, ct_plan, us_plan

WRONG = People(0, -1, "brutal", "sex", 1.5, float("nan"), ("tilt=0.5", "dust=0.1", "duplicates=2"))
OF_PEOPLE = {"--patients", "--seed", "--level", "--target", "--positive-share", "--normal-share"}


def us(people=People(3), **changes):
    return us_plan(people, **{"pictures": False, "size": 256, "uncompressed": False} | changes)


def ceus(people=People(3), **changes):
    asked = {"clip": (60.0, 10.0, 0.0), "screen": (600, 800, None), "pairs": None, "margin": None}
    return ceus_plan(people, **asked | {"uncompressed": False} | changes)


def ct(people=People(3), **changes):
    asked = {"phases": ["nephrographic"], "matrix": 512, "slice_mm": None, "kidneys": "drawn"}
    return ct_plan(people, **asked | changes)


def cohort(people=People(3), **changes):
    return cohort_plan(people, **{"clip": (60.0, 10.0, 0.0)} | changes)


def problems(make, *given, **changes):
    with pytest.raises(ConfigError) as caught:
        make(*given, **changes)
    assert all(problem.startswith("--") for problem in caught.value.problems)
    return [problem.partition(":")[0] for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("make", "changes", "named"),
    [
        (us, {"size": 63, "pictures": True, "uncompressed": True}, {"--size", "--uncompressed"}),
        (
            ceus,
            {"clip": (0.5, 100.0, 0.5), "screen": (20, 20, "beside"), "pairs": 0, "margin": 1},
            {"--seconds", "--fps", "--jitter", "--rows", "--cols", "--layout", "--pairs"}
            | {"--margin"},
        ),
        (cohort, {"clip": (float("nan"), float("inf"), 0.0)}, {"--seconds", "--fps"}),
        (
            ct,
            {"phases": ["arterial"], "matrix": 1025, "slice_mm": 0.0, "kidneys": "three"},
            {"--phases", "--matrix", "--slice-mm", "--kidneys"},
        ),
        (
            ct,
            {"aml_share": 1.0, "tumour_mm": "40,20", "cyst_mm": "small"},
            {"--aml-share", "--tumour-mm", "--cyst-mm"},
        ),
    ],
    ids=["us", "ceus", "cohort", "ct", "ct lesions"],
)
def test_every_problem_is_named_once(make, changes, named):
    found = problems(make, WRONG, **changes)
    assert set(found) == OF_PEOPLE | {"--fault"} | named
    assert found.count("--fault") == (2 if make is ct else 3)
    assert len(found) == len(set(found)) + found.count("--fault") - 1


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (us, "missing_frames"),
        (us, "tilt"),
        (ceus, "tilt"),
        (cohort, "tilt"),
        (ct, "leaking_calipers"),
    ],
)
def test_a_fault_that_such_files_cannot_have_is_refused(make, fault):
    with pytest.raises(ConfigError, match=f"{fault} cannot be in such files"):
        make(People(3, faults=[f"{fault}=0.1"]))


def test_pairs_have_no_spacing_and_lose_no_frames():
    people = People(3, faults=["wrong_units=1", "missing_frames=1"])
    assert problems(ceus, people, pairs=2) == ["--fault", "--fault"]


def test_a_margin_is_of_pairs_and_the_usual_one_is_no_new_plan():
    assert problems(ceus, margin=0.1) == ["--margin"]
    assert problems(ceus, margin=float("nan"), pairs=2) == ["--margin"]
    assert plan_settings(ceus(margin=0.0, pairs=2))["margin"] == 0.0
    usual = plan_settings(ceus(pairs=2))
    assert usual == plan_settings(ceus(margin=0.1, pairs=2))
    for settings in (usual, *(plan_settings(make()) for make in (us, ceus, ct, cohort))):
        assert "margin" not in settings


def test_what_does_not_fit_a_file_is_refused():
    assert problems(ceus, clip=(300.0, 20.0, 0.0), uncompressed=True) == ["--uncompressed"]
    assert problems(ceus, clip=(1000.0, 10.0, 0.1)) == ["--jitter"]
    assert problems(ceus, clip=(1.0, 0.5, 0.0)) == ["--seconds"]
    assert ceus(clip=(1000.0, 10.0, 0.1), pairs=2).pairs == 2


@pytest.mark.parametrize("screen", [(240, 3840, None), (2160, 320, None)])
def test_a_screen_has_room_for_two_panels(screen):
    assert problems(ceus, screen=screen) == ["--rows"]


@pytest.mark.parametrize("faults", [["tilt"], ["tilt=x"], ["tilt=-0.1"], ["tilt=0.1", "tilt=0.2"]])
def test_a_fault_needs_one_share(faults):
    assert problems(ct, People(3, faults=faults)) == ["--fault"]


def test_options_reach_the_plan():
    people = People(3, 7, "easy", "grade", 0.5, 0.25, ["label_noise=0.1"])
    plan = ceus(people, clip=(5.0, 4.0, 0.1), screen=(480, 640, "b-top"), uncompressed=True)
    assert (plan.kind, plan.jpeg_quality, plan.ceus.layout) == ("ceus", None, Layout.TOP)
    assert (plan.ceus.rows, plan.ceus.cols, plan.ceus.jitter) == (480, 640, 0.1)
    drawn = plan.patients
    assert (drawn.n_patients, drawn.seed, drawn.level, drawn.target) == (3, 7, "easy", "grade")
    assert (drawn.positive_share, drawn.normal_share) == (0.5, 0.25)
    assert drawn.dials.label_noise == 0.1
    scan = ct(phases=["excretory", "non-contrast"], slice_mm=2.5, kidneys="horseshoe").ct
    assert scan.phases == (Phase.EXCRETORY, Phase.NON_CONTRAST)
    assert (scan.slice_spacing_mm, scan.kidneys) == (2.5, "horseshoe")
    assert us(pictures=True, size=64).pictures
    assert cohort(clip=(9.0, 4.0, 0.0)).ceus.duration_s == 9.0


def test_sizes_and_kinds_of_ct_lesions_reach_the_plan():
    scan = ct(aml_share=0.4, tumour_mm="10,50.5", cyst_mm=" 2, 4.9").ct
    assert (scan.aml_share, scan.tumour_mm, scan.cyst_mm) == (0.4, (10.0, 50.5), (2.0, 4.9))
    assert ct().ct == replace(ct().ct, aml_share=0.1, tumour_mm=None, cyst_mm=None)
