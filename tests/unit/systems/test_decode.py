"""A fused network says which modalities its answer comes from."""

from __future__ import annotations

import numpy as np
import pytest

from renalkit.domain.image import Mode
from renalkit.errors import ModelRefused
from renalkit.systems._decode import decode_fused, softmax


def test_an_image_with_a_modality_missing_is_scored_by_the_head_of_the_other():
    raw = {
        "class_logits": np.array([[0.0, 2.0], [5.0, 0.0]], np.float32),
        "branch_logits": np.array([[[0, 1], [1, 0]], [[3, 0], [0, 3]]], np.float32),
        "modality_weights": np.array([[0.7, 0.3], [0.5, 0.5]], np.float32),
        "present": np.array([[True, True], [False, True]]),
    }
    whole, single = decode_fused(raw, (Mode.B, Mode.CEUS))
    assert whole.modalities == (Mode.B, Mode.CEUS)
    assert whole.modality_weights == pytest.approx((0.7, 0.3))
    assert whole.scores == pytest.approx(softmax([0.0, 2.0]))
    assert single.modalities == (Mode.CEUS,)
    assert single.modality_weights is None
    assert single.scores == pytest.approx(softmax([0.0, 3.0]))
    del raw["present"]
    assert decode_fused(raw, (Mode.B, Mode.CEUS))[1].modalities == (Mode.B, Mode.CEUS)


@pytest.mark.parametrize("branches", [True, False])
def test_without_any_modality_or_head_there_is_no_answer(branches):
    raw = {
        "class_logits": np.zeros((1, 2), np.float32),
        "present": np.array([[False, not branches]]),
    }
    if branches:
        raw["branch_logits"] = np.zeros((1, 2, 2), np.float32)
    with pytest.raises(ModelRefused, match="an image with"):
        decode_fused(raw, (Mode.B, Mode.CEUS))
    with pytest.raises(ModelRefused, match="one per image and modality"):
        decode_fused({**raw, "present": np.ones((1, 3), bool)}, (Mode.B, Mode.CEUS))
