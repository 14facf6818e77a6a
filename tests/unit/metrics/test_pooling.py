"""The rule that makes patients of frames is chosen by validation patients, and found when it is
right."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from sklearn.metrics import log_loss

from renalkit.domain.prediction import Pooling, Prediction, Rule, SystemRef, Unit, aggregate
from renalkit.domain.sample import SampleKey
from renalkit.metrics.pooling import (
    CANDIDATES,
    LEAST_PATIENTS,
    TEMPERATURES,
    choose_pooling,
    patient_log_loss,
)

REF = SystemRef("net", "net", "0" * 64)


def frames(scores: list[list[float]], truth: list[int]) -> list[Prediction]:
    """Scores of the positive class, a list per patient."""
    return [
        Prediction(
            Unit.FRAME,
            SampleKey(f"p-{i:03d}", f"s-{i:03d}", "l", 0, k),
            (1 - p, p),
            truth[i],
            REF,
            0,
        )
        for i, own in enumerate(scores)
        for k, p in enumerate(own)
    ]


def drawn(n: int, telling: int, seed: int = 0) -> list[Prediction]:
    """Patients of ten frames of which only some tell, and are sure; the others say about 0.5."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    scores: list[list[float]] = []
    for t in truth:
        own = rng.uniform(0.45, 0.55, 10)
        right = rng.random(telling) < 0.95
        own[:telling] = np.where(right == bool(t), 0.95, 0.05)
        scores.append(own.tolist())
    return frames(scores, truth.tolist())


def test_the_loss_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    truth, p = rng.integers(0, 2, 30), rng.uniform(0.01, 0.99, 30)
    patients = aggregate(frames([[v] for v in p], truth.tolist()), Unit.PATIENT)
    assert patient_log_loss(patients) == pytest.approx(log_loss(truth, p))
    assert patient_log_loss([replace(patients[0], scores=(1.0, 0.0), target=1)]) == inf
    assert patient_log_loss([]) == inf
    with pytest.raises(ValueError, match="without known class"):
        patient_log_loss([replace(patients[0], target=None)])


def test_every_loss_is_that_of_its_rule_and_the_lowest_wins() -> None:
    validation = drawn(40, telling=10)
    found = choose_pooling(validation, Pooling())
    assert set(found.losses) == set(CANDIDATES) == set(Rule) - {Rule.MAJORITY}
    for rule in set(CANDIDATES) - {Rule.ATTENTION}:
        loss = patient_log_loss(aggregate(validation, Unit.PATIENT, rule))
        assert found.losses[rule] == loss
    losses = [
        patient_log_loss(
            aggregate(validation, Unit.PATIENT, Pooling(Rule.ATTENTION, temperature=t))
        )
        for t in TEMPERATURES
    ]
    assert found.losses[Rule.ATTENTION] == min(losses)
    assert found.losses[found.pooling.rule] == min(found.losses.values())
    assert found.n == 40


def test_attention_is_found_where_few_frames_tell() -> None:
    found = choose_pooling(drawn(60, telling=2), Pooling())
    assert found.pooling.rule in (Rule.ATTENTION, Rule.TOPK, Rule.MAX)
    assert found.losses[Rule.ATTENTION] < found.losses[Rule.MEAN] - 0.1
    alone = choose_pooling(drawn(60, telling=2), Pooling(Rule.ATTENTION), (Rule.ATTENTION,))
    assert alone.pooling.temperature in TEMPERATURES
    assert alone.losses == {Rule.ATTENTION: found.losses[Rule.ATTENTION]}


def test_equal_losses_take_the_first_rule() -> None:
    one_frame_each = frames([[p] for p in np.linspace(0.1, 0.9, 20)], [0] * 10 + [1] * 10)
    found = choose_pooling(one_frame_each, Pooling())
    assert found.pooling.rule is Rule.MEAN
    assert found.losses[Rule.MAX] == pytest.approx(found.losses[Rule.MEAN])


def test_few_patients_or_one_class_choose_nothing() -> None:
    few = drawn(LEAST_PATIENTS - 1, telling=2)
    found = choose_pooling(few, Pooling(Rule.MEDIAN))
    assert (found.pooling.rule, found.n) == (Rule.MEDIAN, LEAST_PATIENTS - 1)
    assert "9 validation patients, fewer than 10" in found.note
    alike = [replace(p, target=1) for p in drawn(20, telling=2)]
    assert "one class only" in choose_pooling(alike, Pooling()).note
    unknown = [replace(p, target=None) for p in drawn(20, telling=2)]
    assert choose_pooling(unknown, Pooling()).n == 0
    wrong = frames([[0.0]] * 10 + [[1.0]] * 10, [1] * 10 + [0] * 10)
    assert "sure of a wrong class" in choose_pooling(wrong, Pooling()).note


def test_the_order_of_frames_does_not_matter() -> None:
    validation = drawn(30, telling=3)
    assert choose_pooling(validation[::-1], Pooling()) == choose_pooling(validation, Pooling())
