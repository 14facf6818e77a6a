"""How far two sets of results are apart, and what each mode allows."""

from __future__ import annotations

import numpy as np
import pytest

from renalkit.errors import ModelRefused
from renalkit.runtime.abilities import Precision
from renalkit.runtime.parity import ALLOWED, compare


def results(n: int = 4) -> dict[str, np.ndarray]:
    source = np.random.default_rng(0)
    return {
        "mask_logits": source.normal(size=(n, 1, 16, 16)).astype(np.float32),
        "class_logits": source.normal(size=(n, 2)).astype(np.float32),
        "branch_logits": source.normal(size=(n, 2, 2)).astype(np.float32),
        "modality_weights": source.random((n, 2)).astype(np.float32),
    }


def test_equal_results_pass_every_mode() -> None:
    found = compare(results(), results())
    assert found.images == 4
    assert set(found.difference.values()) == {0.0}
    assert (found.dice, found.score, found.calls) == (1.0, 0.0, 0)
    for mode in Precision:
        found.require(mode, where="x")


def test_rounding_passes_and_more_does_not() -> None:
    expected = results()
    for name in expected:
        moved = dict(expected)
        moved[name] = expected[name] + np.float32(2e-5)
        assert compare(expected, moved).problems(Precision.FP32) == []
        moved[name] = expected[name] + np.float32(1e-3)
        with pytest.raises(ModelRefused, match=f"{name} differs by 0.001"):
            compare(expected, moved).require(Precision.FP32, where="x")


def test_the_difference_counts_as_a_share_of_large_logits() -> None:
    large = {"class_logits": np.array([[0.0, 50.0]], np.float32)}
    near = {"class_logits": np.array([[0.0, 50.004]], np.float32)}
    far = {"class_logits": np.array([[0.0, 50.006]], np.float32)}
    assert compare(large, near).problems(Precision.FP32) == []
    assert compare(large, far).problems(Precision.FP32) != []


def test_fast_modes_are_judged_by_masks_and_scores() -> None:
    expected = results()
    moved = dict(expected, modality_weights=expected["modality_weights"] + 0.5)
    assert compare(expected, moved).problems(Precision.BF16) == []
    moved = dict(expected, class_logits=expected["class_logits"] + np.float32([0.4, 0]))
    with pytest.raises(ModelRefused, match="a class score moves by"):
        compare(expected, moved).require(Precision.BF16, where="x")
    flipped = expected["mask_logits"].copy()
    flipped[:, :, :1] *= -1
    found = compare(expected, dict(expected, mask_logits=flipped))
    one, other = expected["mask_logits"] >= 0, flipped >= 0
    assert found.dice == pytest.approx(2 * (one & other).sum() / (one.sum() + other.sum()))
    with pytest.raises(ModelRefused, match="Dice of the masks"):
        found.require(Precision.INT8, where="x")


def test_empty_masks_agree_and_changed_calls_are_counted() -> None:
    nothing = {"mask_logits": np.full((1, 1, 4, 4), -1.0, np.float32)}
    assert compare(nothing, nothing).dice == 1.0
    one = {"class_logits": np.array([[0.0, 0.01], [0.0, -0.01]], np.float32)}
    other = {"class_logits": np.array([[0.0, -0.01], [0.0, -0.01]], np.float32)}
    assert compare(one, other).calls == 1


def test_values_that_are_not_numbers_never_pass() -> None:
    expected = {"class_logits": np.array([[0.0, 1.0]], np.float32)}
    broken = {"class_logits": np.array([[0.0, np.nan]], np.float32)}
    assert compare(expected, broken).problems(Precision.FP32)


def test_other_names_and_shapes_are_an_error() -> None:
    with pytest.raises(ValueError, match="results"):
        compare({"a": np.zeros(1)}, {"b": np.zeros(1)})
    with pytest.raises(ValueError, match="results"):
        compare({"a": np.zeros(1)}, {"a": np.zeros(2)})
    with pytest.raises(ValueError, match="results"):
        compare({}, {})


def test_the_tolerances_are_as_stated() -> None:
    assert ALLOWED[Precision.FP32].difference == 1e-4
    assert all(t.dice == 0.995 and t.auc == 0.002 for t in ALLOWED.values())
