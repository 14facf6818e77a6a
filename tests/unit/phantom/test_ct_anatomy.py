import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.errors import ConfigError
from renalkit.phantom.ct.anatomy import LEAST_FIELD_MM, CtPlan, Phase, draw_case

N = 40


@pytest.fixture(scope="module")
def population():
    return [draw_case(CtPlan(), seed) for seed in range(N)]


def test_the_same_seed_gives_the_same_case_and_plain_numbers():
    plan = CtPlan(distractors=4.0)
    first, second = (json.dumps(dataclasses.asdict(draw_case(plan, 5))) for _ in range(2))
    assert first == second
    assert first != json.dumps(dataclasses.asdict(draw_case(plan, 6)))


def test_the_field_of_view_holds_the_patient(population):
    for case in population:
        depth, step, _ = case.spacing_mm
        field = step * case.shape[1]
        assert field >= LEAST_FIELD_MM - 1e-6
        assert field >= 2 * (case.body.frame_mm[0] + case.body.fat_mm[1]) or field == 532.0
        assert 0.39 <= step <= 1.04
        assert 0.5 <= depth <= 5.0


def test_spacing_follows_the_anchors(population):
    assert 2.0 <= np.median([case.spacing_mm[0] for case in population]) <= 4.0
    assert 0.68 <= np.median([case.spacing_mm[1] for case in population]) <= 0.85
    thin = np.mean([case.spacing_mm[0] <= 1.0 for case in population])
    assert 0.0 < thin <= 0.42  # 18 % drawn; four standard errors


def test_kidneys_have_the_usual_size(population):
    axes = np.array([k.hull.semi_axes_mm for case in population for k in case.kidneys])
    assert np.allclose(np.median(axes, axis=0), (52.0, 27.0, 24.0), rtol=0.05)
    for case in population:
        for kidney in case.kidneys:
            assert (kidney.hull.centre_mm[0] > 0) == (kidney.side == "left")
            # Upper poles are closer to the midline except in a horseshoe kidney.
            up = np.asarray(kidney.hull.rotation[0])
            assert up[2] > 0.8


def test_counts_follow_the_anchors(population):
    sick = [case for case in population if case.lesions]
    assert 0.75 <= len(sick) / N <= 1.0
    tumours = [sum(one.label == "tumour" for one in case.lesions) for case in sick]
    cysts = [sum(one.label == "cyst" for one in case.lesions) for case in sick]
    assert np.mean(np.array(tumours) == 1) == pytest.approx(0.90, abs=0.2)
    assert np.mean(np.array(cysts) == 0) == pytest.approx(0.49, abs=0.32)


def test_scans_cover_kidneys_and_masses(population):
    for case in population:
        bottom = case.origin_lps_mm[2] - case.spacing_mm[0] / 2
        top = bottom + case.shape[0] * case.spacing_mm[0]
        for part in (*(one.body for one in case.lesions), *(k.hull for k in case.kidneys)):
            half = part.half_extent_mm[2]
            assert bottom < part.centre_mm[2] - 0.9 * half
            assert part.centre_mm[2] + 0.9 * half < top


@given(seed=st.integers(0, 10**6), tumours=st.integers(0, 2), cysts=st.integers(0, 4))
@settings(max_examples=12, deadline=None)
def test_masses_are_numbered_placed_and_apart(seed, tumours, cysts):
    plan = CtPlan(
        normal_share=0.0, tumours=tumours, cysts=cysts, tumour_mm=(15.0, 60.0), touching_share=0.0
    )
    case = draw_case(plan, seed)
    assert [one.number for one in case.lesions] == list(range(1, len(case.lesions) + 1))
    assert len(case.lesions) == tumours + cysts
    for one in case.lesions:
        assert 0.0 <= one.exophytic_share <= 1.0
        kidney = next(k for k in case.kidneys if k.side == one.side)
        assert kidney.radius(np.asarray([one.body.centre_mm]))[0] < 3.0
        assert case.body.excess_mm(one.surface()) < 6.0
        for other in case.lesions:
            if other is not one:
                assert one.depth_mm(other.surface()).max() < -2.0


def test_endophytic_and_exophytic_masses_and_all_polarities_occur():
    plan = CtPlan(normal_share=0.0, tumours=2, cysts=2, tumour_mm=(15.0, 30.0))
    masses = [one for seed in range(14) for one in draw_case(plan, seed).lesions]
    shares = np.array([one.exophytic_share for one in masses])
    assert (shares < 0.05).mean() > 0.08
    assert (shares > 0.5).mean() > 0.15
    assert {one.polarity for one in masses} == {"upper", "middle", "lower"}
    assert {one.side for one in masses} == {"left", "right"}


def test_touching_masses_touch_without_overlap():
    plan = CtPlan(
        normal_share=0.0,
        tumours=1,
        cysts=1,
        tumour_mm=(25.0, 45.0),
        cyst_mm=(12.0, 25.0),
        touching_share=1.0,
        kidneys="left_only",
    )
    touching = 0
    for seed in range(5):
        first, second = draw_case(plan, seed).lesions
        if second.touching:
            touching += 1
            gap = -max(
                first.depth_mm(second.surface()).max(), second.depth_mm(first.surface()).max()
            )
            assert -1.0 < gap < 0.5
    assert touching >= 4


def test_agenesis_and_horseshoe_kidneys():
    (left,) = draw_case(CtPlan(kidneys="left_only"), 1).kidneys
    (right,) = draw_case(CtPlan(kidneys="right_only"), 1).kidneys
    assert (left.side, right.side) == ("left", "right")
    assert np.prod(left.hull.semi_axes_mm) > 1.1 * 52 * 27 * 24
    fused = draw_case(CtPlan(kidneys="horseshoe"), 1)
    assert len(fused.kidneys) == 2
    middle = fused.isthmus_mm[len(fused.isthmus_mm) // 2]
    assert middle[1] < fused.body.aorta_mm[1] - 15.0  # in front of the aorta
    assert abs(middle[0]) < 10.0


def test_anomalies_are_rare_unless_asked_for(population):
    assert sum(len(case.kidneys) == 1 or bool(case.isthmus_mm) for case in population) <= 5


def test_a_thin_slice_option_and_a_given_shape():
    thin = draw_case(CtPlan(slice_spacing_mm=0.8), 3)
    assert thin.spacing_mm[0] == 0.8
    fixed = draw_case(CtPlan(slices=128, matrix=256, tumour_mm=(20.0, 40.0)), 3)
    assert fixed.shape == (128, 256, 256)
    assert math.isclose(fixed.spacing_mm[1], fixed.spacing_mm[2])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"normal_share": 1.5}, "normal_share is 1.5"),
        ({"tumours": 40}, "tumours is 40"),
        ({"cysts": -1}, "cysts is -1"),
        ({"tumour_mm": (10.0, 300.0)}, "tumour_mm"),
        ({"tumour_mm": (30.0, 20.0)}, "tumour_mm"),
        ({"cyst_mm": (0.5, 9.0)}, "cyst_mm"),
        ({"field_mm": 200.0}, "field_mm is 200.0, expected 340"),
        ({"slice_spacing_mm": 0.0}, "slice_spacing_mm"),
        ({"slice_spacing_mm": math.nan}, "slice_spacing_mm is nan"),
        ({"matrix": 2048}, "matrix"),
        ({"slices": 2}, "slices"),
        ({"noise_hu": -1.0}, "noise_hu"),
        ({"kidneys": "three"}, "kidneys is 'three'"),
        ({"phases": ()}, "phases"),
        ({"phases": ("delayed",)}, "'delayed'"),
        ({"phases": (Phase.EXCRETORY, Phase.EXCRETORY)}, "different phases"),
    ],
)
def test_extreme_plans_are_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        CtPlan(**wrong)


def test_all_problems_of_a_plan_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        CtPlan(normal_share=-1.0, matrix=1, noise_hu=1e9)
    assert len(error.value.problems) == 3


def test_slices_that_cannot_cover_the_kidneys_are_refused():
    with pytest.raises(ConfigError, match="10 slices of 2 mm are 20 mm"):
        draw_case(CtPlan(slices=10, slice_spacing_mm=2.0), 1)
    with pytest.raises(ConfigError, match="the simulated body"):
        draw_case(CtPlan(slices=400, slice_spacing_mm=5.0), 1)
