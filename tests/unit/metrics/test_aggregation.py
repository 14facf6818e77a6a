"""From frames to lesions to patients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.domain.prediction import Rule, Unit
from renalkit.errors import InputRefused, StatisticUndefined
from renalkit.metrics.aggregation import ScoredRows, aggregate_scores, one_label_per_patient

RULES = pytest.mark.parametrize("rule", list(Rule))


def frames(seed: int, n_classes: int) -> ScoredRows:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 30))
    scores = rng.dirichlet(np.ones(max(n_classes, 2)), n)
    patients = rng.choice(np.array(["p1", "p10", "p2"]), n)
    lesions = rng.choice(np.array(["left", "right"]), n)
    return ScoredRows(Unit.FRAME, patients, scores if n_classes > 1 else scores[:, 0], lesions)


@RULES
@given(seed=st.integers(0, 5000), n_classes=st.sampled_from([1, 2, 3]), to=st.sampled_from([1, 2]))
@settings(max_examples=40, deadline=None)
def test_row_order_changes_nothing_to_the_last_bit(rule, seed, n_classes, to):
    rows = frames(seed, n_classes)
    order = np.random.default_rng(seed + 1).permutation(len(rows.scores))
    mixed = ScoredRows(rows.unit, rows.patients[order], rows.scores[order], rows.lesions[order])
    a, b = (aggregate_scores(r, Unit(to), rule) for r in (rows, mixed))
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.patients, b.patients)
    keys = list(zip(a.patients, a.lesions, strict=True)) if to == 1 else a.patients.tolist()
    assert keys == sorted(set(keys))


@RULES
@given(seed=st.integers(0, 5000), n_classes=st.sampled_from([1, 3]))
@settings(max_examples=40, deadline=None)
def test_scores_are_those_of_a_plain_loop(rule, seed, n_classes):
    rows = frames(seed, n_classes)
    out = aggregate_scores(rows, Unit.PATIENT, rule)
    assert out.unit is Unit.PATIENT
    assert out.lesions is None
    for patient, got in zip(out.patients, out.scores, strict=True):
        own = rows.scores[rows.patients == patient]
        if rule is Rule.MAJORITY:
            votes = own >= 0.5 if n_classes == 1 else np.eye(n_classes)[own.argmax(axis=1)]
            want = votes.mean(axis=0)
        else:
            want = {Rule.MEAN: np.mean, Rule.MEDIAN: np.median, Rule.MAX: np.max}[rule](own, axis=0)
            want = want / want.sum() if n_classes > 1 else want
        np.testing.assert_allclose(got, want, atol=1e-12)


@RULES
def test_one_row_each_keeps_its_score(rule):
    rows = ScoredRows(Unit.LESION, np.array([3, 1]), np.array([[0.2, 0.8], [0.7, 0.3]]))
    out = aggregate_scores(rows, Unit.PATIENT, rule)
    want = [[1, 0], [0, 1]] if rule is Rule.MAJORITY else [[0.7, 0.3], [0.2, 0.8]]
    np.testing.assert_allclose(out.scores, want)
    assert out.patients.tolist() == [1, 3]


def test_lesions_first_weighs_lesions_and_straight_weighs_frames():
    rows = ScoredRows(
        Unit.FRAME, np.array(["a"] * 4), np.array([1.0, 1, 1, 0]), np.array(["x", "x", "x", "y"])
    )
    assert aggregate_scores(rows, Unit.PATIENT).scores[0] == 0.75
    lesions = aggregate_scores(rows, Unit.LESION)
    assert lesions.scores.tolist() == [1, 0]
    assert aggregate_scores(lesions, Unit.PATIENT).scores[0] == 0.5


def test_equal_lesion_names_of_two_patients_are_two_lesions():
    rows = ScoredRows(Unit.FRAME, np.array(["a", "b"]), np.array([0.1, 0.9]), np.array(["1", "1"]))
    assert aggregate_scores(rows, Unit.LESION).scores.tolist() == [0.1, 0.9]


@pytest.mark.parametrize(("unit", "to"), [(Unit.PATIENT, Unit.LESION), (Unit.FRAME, Unit.FRAME)])
def test_only_upward(unit, to):
    with pytest.raises(ValueError, match="cannot turn"):
        aggregate_scores(ScoredRows(unit, np.array(["a"]), np.array([0.5])), to)


def test_unnamed_lesions_bad_scores_and_keys_are_refused():
    with pytest.raises(ValueError, match="do not name"):
        aggregate_scores(ScoredRows(Unit.FRAME, np.array(["a"]), np.array([0.5])), Unit.LESION)
    with pytest.raises(StatisticUndefined, match="NaN"):
        ScoredRows(Unit.FRAME, np.array(["a"]), np.array([np.nan]))
    with pytest.raises(StatisticUndefined, match="keys"):
        ScoredRows(Unit.FRAME, np.array(["a", "b"]), np.array([0.5]))
    with pytest.raises(StatisticUndefined, match="shape"):
        ScoredRows(Unit.FRAME, np.array([]), np.array([]))
    with pytest.raises(StatisticUndefined, match="sum to 0"):
        aggregate_scores(
            ScoredRows(Unit.FRAME, np.array(["a"]), np.zeros((1, 2))), Unit.PATIENT, Rule.MAX
        )


def test_labels_follow_patients_or_are_refused():
    patients = np.array(["b", "a", "b"])
    assert one_label_per_patient(patients, np.array([1, 0, 1])).tolist() == [0, 1]
    with pytest.raises(InputRefused, match="1 of 2 patients carry more than one label"):
        one_label_per_patient(patients, np.array([1, 0, 0]))
