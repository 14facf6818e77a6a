"""Scores are probabilities and only go upward; no patient is in two parts of a fold."""

from __future__ import annotations

import random
from dataclasses import replace
from math import exp, prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalkit.domain.prediction import Pooling, Prediction, Rule, SystemRef, Unit, aggregate
from renalkit.domain.sample import SampleKey
from renalkit.domain.splits import Fold, Plan, Split

SYSTEM = SystemRef("unet", "unet", "0" * 64)
SCORES = st.lists(st.floats(0.001, 1), min_size=2, max_size=2).map(
    lambda v: (v[0] / sum(v), 1 - v[0] / sum(v))
)


def prediction(
    scores: tuple[float, ...] | None, patient: str = "p", frame: int = 0, **more: object
) -> Prediction:
    base: dict[str, object] = {"unit": Unit.FRAME, "target": None, "system": SYSTEM, "fold": 0}
    return Prediction(
        key=SampleKey(patient, f"s{patient}", "l", 0, frame), scores=scores, **{**base, **more}
    )  # type: ignore[arg-type]


ROWS = st.lists(st.tuples(st.sampled_from("abc"), SCORES), min_size=1, max_size=12)


@given(rows=ROWS, rule=st.sampled_from(Rule), seed=st.integers())
def test_aggregation_keeps_probabilities_patients_and_order_does_not_matter(
    rows: list[tuple[str, tuple[float, ...]]], rule: Rule, seed: int
) -> None:
    frames = [prediction(s, p, i) for i, (p, s) in enumerate(rows)]
    found = aggregate(frames, Unit.PATIENT, rule)
    assert [p.key.patient for p in found] == sorted({p for p, _ in rows})
    assert sum(p.n_frames for p in found) == len(rows)
    for p in found:
        assert p.unit is Unit.PATIENT
        assert p.scores is not None
        assert abs(sum(p.scores) - 1) < 1e-12
    turned = frames.copy()
    random.Random(seed).shuffle(turned)
    assert aggregate(turned, Unit.PATIENT, rule) == found


@given(
    scores=SCORES,
    n=st.integers(1, 5),
    rule=st.sampled_from([r for r in Rule if r is not Rule.MAJORITY]),
)
def test_agreeing_frames_give_their_own_score(
    scores: tuple[float, ...], n: int, rule: Rule
) -> None:
    (found,) = aggregate([prediction(scores, "a", i) for i in range(n)], Unit.PATIENT, rule)
    assert found.scores == pytest.approx(scores, abs=1e-12)


def test_the_rules_by_hand() -> None:
    frames = [prediction(s, "a", i) for i, s in enumerate(((0.9, 0.1), (0.6, 0.4), (0.2, 0.8)))]

    def one(rule: Rule) -> tuple[float, ...] | None:
        return aggregate(frames, Unit.PATIENT, rule)[0].scores

    assert one(Rule.MEAN) == pytest.approx((1.7 / 3, 1.3 / 3), abs=1e-12)
    assert one(Rule.MEDIAN) == pytest.approx((0.6, 0.4), abs=1e-12)
    assert one(Rule.MAX) == pytest.approx((0.9 / 1.7, 0.8 / 1.7), abs=1e-12)
    assert one(Rule.MAJORITY) == pytest.approx((2 / 3, 1 / 3), abs=1e-12)
    # The one frame of three (a share of 0.2) that says most for each class, as `max` does.
    assert one(Rule.TOPK) == one(Rule.MAX)
    none = (0.9 * 0.6 * 0.2) ** (1 / 3)
    assert one(Rule.NOISY_OR) == pytest.approx((none, 1 - none), abs=1e-12)
    w = [exp(c / 0.2) for c in (0.9, 0.6, 0.8)]
    benign = sum(a * b for a, b in zip(w, (0.9, 0.6, 0.2), strict=True)) / sum(w)
    assert one(Rule.ATTENTION) == pytest.approx((benign, 1 - benign), abs=1e-12)


def pooled(values: list[tuple[float, ...]], rule: Rule, **numbers: float) -> tuple[float, ...]:
    return Pooling(rule, **numbers).pooled(values)  # type: ignore[arg-type]


@given(rows=st.lists(SCORES, min_size=1, max_size=12))
def test_the_ends_of_each_rule_are_rules_themselves(rows: list[tuple[float, ...]]) -> None:
    mean, most = pooled(rows, Rule.MEAN), pooled(rows, Rule.MAX)
    assert pooled(rows, Rule.TOPK, share=1) == pytest.approx(mean, abs=1e-12)
    assert pooled(rows, Rule.TOPK, share=1e-6) == pytest.approx(most, abs=1e-12)
    assert pooled(rows, Rule.ATTENTION, temperature=1e6) == pytest.approx(mean, abs=1e-5)
    surest = max(rows, key=max)
    if sum(max(surest) - max(r) < 0.02 for r in rows) == 1:
        found = pooled(rows, Rule.ATTENTION, temperature=5e-4)
        assert found == pytest.approx(surest, abs=1e-9)


@given(rows=st.lists(SCORES, min_size=1, max_size=8))
def test_the_plain_noisy_or_is_the_chance_of_any_frame(rows: list[tuple[float, ...]]) -> None:
    assert pooled(rows, Rule.NOISY_OR, noisy_or_frames=0)[1] == pytest.approx(
        1 - prod(1 - p for _, p in rows), abs=1e-12
    )
    turned = [(b, a) for a, b in rows]
    asked = pooled(turned, Rule.NOISY_OR, positive=0)
    assert asked == pytest.approx(pooled(rows, Rule.NOISY_OR)[::-1], abs=1e-12)


@given(
    rows=st.lists(st.lists(st.floats(0.001, 1), min_size=3, max_size=3), min_size=1, max_size=6),
    rule=st.sampled_from(Rule),
    order=st.permutations(range(3)),
)
def test_rules_treat_several_classes_alike(
    rows: list[list[float]], rule: Rule, order: list[int]
) -> None:
    values = [tuple(v / sum(row) for v in row) for row in rows]
    found = pooled(values, rule)
    assert sum(found) == pytest.approx(1)
    if rule is not Rule.MAJORITY:  # votes of equal scores go to the first class
        turned = pooled([tuple(v[k] for k in order) for v in values], rule)
        assert turned == pytest.approx([found[k] for k in order], abs=1e-12)


def test_certain_frames_stay_probabilities() -> None:
    for rule in Rule:
        found = pooled([(1.0, 0.0), (0.0, 1.0), (1.0, 0.0)], rule)
        assert sum(found) == pytest.approx(1)
        assert min(found) >= 0
    assert pooled([(0.5, 0.5), (0.0, 1.0)], Rule.NOISY_OR) == (0, 1)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"share": 0}, "share of frames 0"),
        ({"share": 1.1}, "at most 1"),
        ({"noisy_or_frames": -1}, "frames of noisy-or -1"),
        ({"temperature": 0}, "temperature 0"),
        ({"temperature": float("inf")}, "temperature inf"),
    ],
)
def test_numbers_of_rules_that_cannot_be_are_refused(numbers: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pooled([(0.5, 0.5)], Rule.MEAN, **numbers)


def test_systems_and_folds_are_not_mixed_and_disagreeing_truths_are_none() -> None:
    frames = [
        prediction((0.9, 0.1), frame=0, target=0),
        prediction((0.9, 0.1), frame=1, target=1),
        prediction((0.9, 0.1), frame=0, fold=1, target=1),
        prediction((0.9, 0.1), frame=0, system=replace(SYSTEM, label="other")),
        prediction(None, frame=2),
    ]
    found = aggregate(frames, Unit.PATIENT)
    assert len(found) == 3
    targets = {(p.system.label, p.fold): p.target for p in found}
    assert targets == {("unet", 0): None, ("unet", 1): 1, ("other", 0): None}


def test_units_only_go_upward() -> None:
    patient = prediction((0.5, 0.5), unit=Unit.PATIENT)
    with pytest.raises(ValueError, match="cannot turn patient predictions into frame ones"):
        aggregate([patient], Unit.FRAME)


@pytest.mark.parametrize("scores", [(0.5, 0.6), (1.5, -0.5), (float("nan"), 1.0), (0.2, 0.2), ()])
def test_scores_that_are_no_probabilities_are_refused(scores: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="scores"):
        prediction(scores)


def test_a_target_is_one_of_the_classes() -> None:
    with pytest.raises(ValueError, match="target 2 with 2 classes"):
        prediction((0.5, 0.5), target=2)


NAMES = st.sets(st.integers(0, 9)).map(lambda s: frozenset(map(str, s)))


@given(train=NAMES, validation=NAMES, test=NAMES)
def test_the_parts_of_a_fold_are_disjoint(
    train: frozenset[str], validation: frozenset[str], test: frozenset[str]
) -> None:
    disjoint = len(train | validation | test) == len(train) + len(validation) + len(test)
    if not (disjoint and train):
        with pytest.raises(ValueError, match="fold 0"):
            Fold(0, train, validation, test)
        return
    fold = Fold(0, train, validation, test)
    for patient in map(str, range(10)):
        part = fold.part_of(patient)
        assert [p for p in ("train", "validation", "test") if patient in getattr(fold, p)] == (
            [part] if part else []
        )


def fold(index: int, test: str, train: str = "xyz") -> Fold:
    return Fold(index, frozenset(train), frozenset(), frozenset(test))


def test_what_a_split_cannot_be() -> None:
    with pytest.raises(ValueError, match="at least one fold"):
        Split(Plan.KFOLD, 0, ())
    with pytest.raises(ValueError, match="numbered"):
        Split(Plan.KFOLD, 0, (fold(1, "a"),))
    with pytest.raises(ValueError, match="already tested"):
        Split(Plan.KFOLD, 0, (fold(0, "ab"), fold(1, "bc")))
    with pytest.raises(ValueError, match="share one test part"):
        Split(Plan.HOLDOUT, 0, (fold(0, "a"), fold(1, "b")), shared_test=True)
    Split(Plan.REPEATED_KFOLD, 0, (fold(0, "a"), fold(1, "a")), repeats=2)
    Split(Plan.HOLDOUT, 0, (fold(0, "a"), fold(1, "a")), shared_test=True)


def test_the_digest_sees_every_part_and_the_seed() -> None:
    base = Split(Plan.KFOLD, 0, (fold(0, "a"), fold(1, "b")))
    others = [
        replace(base, seed=1),
        replace(base, folds=(fold(0, "b"), fold(1, "a"))),
        replace(base, folds=(fold(0, "a", "xy"), fold(1, "b"))),
        replace(
            base, folds=(Fold(0, frozenset("xy"), frozenset("z"), frozenset("a")), fold(1, "b"))
        ),
    ]
    assert len({s.digest for s in [base, *others]}) == 5
    assert base.digest == Split(Plan.KFOLD, 0, (fold(0, "a"), fold(1, "b"))).digest
