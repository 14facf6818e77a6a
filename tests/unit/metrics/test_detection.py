"""Lesions found and missed: pairing by hand, FROC by brute force, nothing to find or mark."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalkit.errors import InputRefused, StatisticUndefined
from renalkit.metrics.bootstrap import BootstrapPlan, cluster_bootstrap
from renalkit.metrics.detection import (
    Criterion,
    FrocSensitivity,
    HitRule,
    diameter,
    froc,
    lesions_of,
    match_lesions,
    region_scores,
    score_map,
)

ANY = HitRule(Criterion.ANY, 0.0, 1)


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((20, 30), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_regions_are_connected_by_corners_and_small_ones_are_dropped() -> None:
    mask = box(0, 0, 3, 3) | box(3, 3, 2, 2) | box(10, 10, 6, 6) | box(18, 0, 1, 2)
    found = lesions_of(mask, least_size=3)
    assert [int(m.sum()) for m in found] == [36, 13]
    assert lesions_of(np.zeros((4, 4))) == ()
    cube = np.zeros((3, 4, 4))
    cube[0, 0, 0] = cube[1, 1, 1] = 2
    assert len(lesions_of(cube)) == 1


def test_overlap_by_each_criterion() -> None:
    """Boxes of 16 that share 8: IoU 1/3, Dice 1/2."""
    a, b = box(0, 0, 4, 4), box(0, 2, 4, 4)
    for criterion, value in ((Criterion.IOU, 1 / 3), (Criterion.DICE, 0.5), (Criterion.ANY, 1.0)):
        (pair,) = match_lesions([a], [b], HitRule(criterion, 0.1, 1)).pairs
        assert pair == (0, 0, pytest.approx(value))
    assert match_lesions([a], [b], HitRule(Criterion.IOU, 0.34, 1)).pairs == ()
    assert match_lesions([a], [box(10, 10, 3, 3)], HitRule(Criterion.IOU, 0.0, 1)).pairs == ()


def test_one_region_finds_one_lesion_and_a_second_mark_is_in_vain() -> None:
    lesion, other = box(0, 0, 6, 6), box(0, 8, 6, 6)
    both = box(0, 0, 6, 14)
    found = match_lesions([lesion, other], [both], ANY)
    assert found.found.sum() == 1
    twice = match_lesions([lesion], [box(0, 0, 6, 3), box(0, 3, 6, 2)], ANY)
    assert twice.right.tolist().count(True) == 1
    assert twice.n_predicted == 2


def test_as_many_as_possible_are_found_before_overlap_counts() -> None:
    """The best pair alone would leave the other lesion without its only region."""
    one, two = box(0, 0, 4, 8), box(0, 8, 4, 4)
    wide, narrow = box(0, 1, 4, 11), box(0, 0, 4, 1)
    found = match_lesions([one, two], [wide, narrow], ANY)
    assert found.found.all()
    assert {(r, p) for r, p, _ in found.pairs} == {(0, 1), (1, 0)}


@given(st.lists(st.integers(0, 255), min_size=4, max_size=4))
def test_pairing_is_the_best_of_all(bits: list[int]) -> None:
    """Two or three lesions and regions on 8 pixels, against every possible pairing."""
    masks = [np.array([[b >> k & 1 for k in range(8)]], bool) for b in bits]
    reference, predicted = masks[:2], masks[2:]
    rule = HitRule(Criterion.IOU, 0.2, 1)
    found = match_lesions(reference, predicted, rule)

    def iou(a: np.ndarray, b: np.ndarray) -> float:
        return float((a & b).sum() / max(1, (a | b).sum()))

    best = (0, 0.0)
    for order in permutations(range(2)):
        for keep in ((0,), (1,), (0, 1)):
            values = [iou(reference[r], predicted[order[r]]) for r in keep]
            if all(v > 0 and v >= 0.2 for v in values):
                best = max(best, (len(values), sum(values)))
    assert len(found.pairs) == best[0]
    assert sum(v for *_, v in found.pairs) == pytest.approx(best[1])


def test_nothing_to_find_and_nothing_marked() -> None:
    some = box(0, 0, 3, 3)
    assert match_lesions([], [some]).right.tolist() == [False]
    assert match_lesions([some], []).found.tolist() == [False]
    assert match_lesions([], []).pairs == ()
    with pytest.raises(InputRefused, match="different shapes"):
        match_lesions([some], [np.ones((3, 3), bool)])
    with pytest.raises(ValueError, match="overlap from 0 to 1"):
        HitRule(least=1.5)


def test_diameter_of_equal_area() -> None:
    assert diameter(box(0, 0, 4, 4), (0.5, 0.5)) == pytest.approx(2 * np.sqrt(4 / np.pi))


# ------------------------------------------------------------------ FROC


def test_froc_by_hand() -> None:
    """Four lesions in two pictures; scores .9 hit, .8 vain, .8 hit, .3 vain, .2 hit."""
    scores, right = [0.9, 0.8, 0.8, 0.3, 0.2], [True, False, True, False, True]
    curve = froc(np.array(scores), np.array(right), n_lesions=4, n_pictures=2)
    assert [(p.threshold, p.sensitivity, p.false_per_picture) for p in curve.points] == [
        (0.9, 0.25, 0.0),
        (0.8, 0.5, 0.5),
        (0.3, 0.5, 1.0),
        (0.2, 0.75, 1.0),
    ]
    point = curve.at(0.5)
    assert point is not None
    assert (point.threshold, point.sensitivity) == (0.8, 0.5)
    never = froc(np.array([0.7]), np.array([False]), 1, 1).at(0.5)
    assert never is None
    assert froc(np.array([]), np.array([]), 1, 1).points == ()


def rows(seed: int = 0) -> tuple[FrocSensitivity, np.ndarray]:
    """Twelve patients with two pictures, a lesion and a few marks each."""
    rng = np.random.default_rng(seed)
    kind, scores, right, who = [], [], [], []
    for patient in range(12):
        marks = int(rng.integers(0, 5))
        kind += [0, 0, 1] + [2] * marks
        scores += [0.0] * 3 + list(rng.integers(0, 6, marks) / 5)
        right += [False] * 3 + [k == 0 and patient % 3 > 0 for k in range(marks)]
        who += [patient] * (3 + marks)
    one = FrocSensitivity(np.array(kind), np.array(scores), np.array(right), 0.5)
    return one, np.array(who)


def test_sensitivity_at_a_rate_agrees_with_the_curve_in_every_resample() -> None:
    statistic, who = rows()
    evaluate = statistic.prepare(who.astype(np.intp), 12)
    rng = np.random.default_rng(1)
    counts = rng.multinomial(12, np.full(12, 1 / 12), size=40).astype(float)
    counts[0] = 1
    got = evaluate(counts)
    for drawn, value in zip(counts, got, strict=True):
        times = drawn[who].astype(int)
        marks = statistic.kind == 2
        curve = froc(
            np.repeat(statistic.scores[marks], times[marks]),
            np.repeat(statistic.right[marks], times[marks]),
            int(times[statistic.kind == 1].sum()),
            int(times[statistic.kind == 0].sum()),
        )
        point = curve.at(0.5)
        assert value == pytest.approx(0.0 if point is None else point.sensitivity)


def test_sensitivity_at_a_rate_has_an_interval_over_patients() -> None:
    statistic, who = rows()
    found = cluster_bootstrap(statistic, who, BootstrapPlan(200))
    assert found.n == 12
    assert found.low <= found.value <= found.high


def test_froc_without_lesions_or_scores_is_refused() -> None:
    with pytest.raises(StatisticUndefined, match="at least one lesion"):
        froc(np.array([0.5]), np.array([False]), 0, 3)
    with pytest.raises(StatisticUndefined, match="finite score"):
        froc(np.array([np.nan]), np.array([True]), 1, 1)


# ------------------------------------------------------------------ scores of regions


@given(st.integers(0, 10_000))
def test_regions_are_scored_in_their_order_and_the_map_gives_the_scores_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((12, 14)) > 0.7
    probability = rng.random(mask.shape)
    scores = region_scores(mask, probability)
    regions = lesions_of(mask)
    assert scores == pytest.approx([probability[m].mean() for m in regions])
    drawn = score_map(mask, scores)
    assert (drawn[~mask] == 0).all()
    assert region_scores(mask, drawn) == pytest.approx(scores)


def test_nothing_has_no_scores_and_another_number_is_refused() -> None:
    empty = np.zeros((4, 4), bool)
    assert region_scores(empty, np.ones((4, 4))) == ()
    assert not score_map(empty, ()).any()
    with pytest.raises(InputRefused, match="2 scores for a mask of 1 regions"):
        score_map(box(0, 0, 2, 2), (0.5, 0.6))
