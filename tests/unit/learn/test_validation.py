"""Validation figures against scikit-learn and hand-counted pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from renalkit.learn.outputs import Outputs, Targets
from renalkit.learn.validation import ValidationBatch, overlap, summarise, validation_auc


def _targets(mask: torch.Tensor, known: list[bool], label: list[int]) -> Targets:
    return Targets(mask, torch.tensor(known), torch.tensor(label))


def test_overlap_counts_only_known_masks_with_a_lesion() -> None:
    mask = torch.zeros(3, 1, 4, 4)
    mask[0, 0, 0, :2] = 1
    mask[2, 0, 0, :2] = 1
    logits = torch.full((3, 1, 4, 4), -1.0)
    logits[0, 0, 0, 1:3] = 1
    found = overlap(logits, _targets(mask, [True, True, False], [0, 0, 0]))
    # One pixel in common, three in the union, two in each.
    torch.testing.assert_close(found, torch.tensor([[1 / 3, 1 / 2]], dtype=torch.float64))


def test_figures_do_not_depend_on_batches() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(10, 1, 8, 8, generator=rng)
    mask = (torch.rand(10, 1, 8, 8, generator=rng) > 0.5).float()
    classes = torch.randn(10, 2, generator=rng)
    label = [0, 1, 0, 1, 1, -1, 0, 1, 0, 1]
    targets = _targets(mask, [True] * 9 + [False], label)

    def parts(size: int):  # type: ignore[no-untyped-def]
        for s in range(0, 10, size):
            rows = slice(s, s + size)
            yield ValidationBatch(
                logits[rows].mean(),
                Outputs((logits[rows],), classes[rows]),
                Targets(targets.mask[rows], targets.has_mask[rows], targets.label[rows]),
            )

    one, many = summarise(parts(10)), summarise(parts(3))
    for name in ("loss", "iou", "dice", "accuracy", "auc"):
        assert getattr(one, name) == pytest.approx(getattr(many, name), abs=1e-6)
    known = np.array(label) >= 0
    probability = torch.softmax(classes.double(), 1).numpy()[known]
    expected = roc_auc_score(np.array(label)[known], probability[:, 1])
    assert one.auc == pytest.approx(expected, abs=1e-12)


def test_several_classes_and_one_that_is_absent() -> None:
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(3), 40)
    labels = rng.integers(0, 3, 40)
    expected = roc_auc_score(labels, scores, multi_class="ovr", average="macro")
    assert validation_auc(scores, labels) == pytest.approx(expected, abs=1e-12)
    two = labels[labels < 2]
    some = validation_auc(scores[labels < 2], two)
    by_hand = [roc_auc_score(two == c, scores[labels < 2][:, c]) for c in (0, 1)]
    assert some == pytest.approx(np.mean(by_hand), abs=1e-12)


def test_nothing_to_measure_is_nan() -> None:
    assert all(math.isnan(v) for v in (summarise(iter([])).loss, summarise(iter([])).auc))
    outputs = Outputs(None, torch.zeros(2, 2))
    targets = _targets(torch.zeros(2, 1, 4, 4), [False, False], [1, 1])
    found = summarise(iter([ValidationBatch(torch.tensor(1.0), outputs, targets)]))
    assert math.isnan(found.iou)
    assert math.isnan(found.auc)
    assert found.accuracy == 0.0
