"""What do raw network arrays mean, without any network library?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from renalkit.domain.image import Mode
from renalkit.errors import ModelRefused
from renalkit.systems._contract import Decoded, RawOutputs

# Shape legend: b images, h heads, s side in pixels, k classes.

Floats = npt.NDArray[np.float64]


def sigmoid(logits: npt.ArrayLike) -> Floats:
    """1 / (1 + exp(-x)) without overflow; any shape.

    >>> sigmoid([-1000.0, 0.0, 1000.0]).tolist()
    [0.0, 0.5, 1.0]
    """
    values = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0, small) / (1.0 + small)


def softmax(logits: npt.ArrayLike) -> Floats:
    """Class scores that sum to 1 along the last axis, without overflow."""
    values = np.asarray(logits, np.float64)
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def decode_fused(
    raw: RawOutputs,
    modalities: Sequence[Mode],
    class_scores: Callable[[npt.ArrayLike], Floats] = softmax,
) -> list[Decoded]:
    """Arrays of a fused network -> one result per image, saying which modalities it comes from.

    raw: 'class_logits' (b,k), 'branch_logits' (b,m,k), 'modality_weights' (b,m), 'present' (b,m)
    bool, all there when it is missing. An image with a modality missing gets the scores of the
    head of the one it has, and no weights.

    Raises:
        ModelRefused: see `decode`; an image without any modality.
    """
    fused = decode(raw, class_scores=class_scores)
    branches = _checked(raw, "branch_logits", 3)
    weights = _checked(raw, "modality_weights", 2)
    everything = np.ones((len(fused), len(modalities)), np.bool_)
    present = np.asarray(raw.get("present", everything), np.bool_)
    if present.shape != everything.shape:
        raise ModelRefused(
            f"presence of shape {present.shape}",
            where="present",
            expected=f"{everything.shape}, one per image and modality",
        )
    found: list[Decoded] = []
    for i, (result, there) in enumerate(zip(fused, present, strict=True)):
        used = tuple(m for m, here in zip(modalities, there, strict=True) if here)
        if there.all():
            shown = None if weights is None else tuple(float(w) for w in weights[i])
            found.append(replace(result, modality_weights=shown, modalities=used))
            continue
        if not used or branches is None:
            raise ModelRefused(
                f"an image with {' and '.join(used) or 'no modality'}",
                where="network input",
                expected=" and ".join(modalities),
                remedy="leave the image out, or use a network of that modality alone",
            )
        scores = class_scores(branches[i][there]).mean(0)
        found.append(replace(result, scores=scores, modalities=used))
    return found


def _checked(raw: RawOutputs, name: str, n_dims: int) -> npt.NDArray[np.float32] | None:
    if name not in raw:
        return None
    values = raw[name]
    if values.ndim != n_dims:
        raise ModelRefused(
            f"output of shape {values.shape}", where=name, expected=f"{n_dims} dimensions"
        )
    if not np.isfinite(values).all():
        raise ModelRefused(
            "output holds NaN or infinite values",
            where=name,
            expected="finite numbers",
            remedy="train again or use other weights; nothing was decided from this output",
        )
    return values


def decode(
    raw: RawOutputs,
    *,
    average_heads: bool = False,
    class_scores: Callable[[npt.ArrayLike], Floats] = softmax,
) -> list[Decoded]:
    """Arrays of a batch -> one result per image.

    raw: 'mask_logits' (b,h,s,s), 'class_logits' (b,k), 'attention' (b,1,s,s), as far as present.
    The mask is the last head's probability, or the mean of all heads' probabilities. class_scores:
    (..., j) logits -> (..., k) scores that sum to 1.

    Raises:
        ModelRefused: a non-finite number, a wrong number of dimensions, parts of unequal length
            or nothing to decode.
    """
    masks = _checked(raw, "mask_logits", 4)
    logits = _checked(raw, "class_logits", 2)
    attention = _checked(raw, "attention", 4)
    lengths = {len(part) for part in (masks, logits, attention) if part is not None}
    if masks is None and logits is None:
        raise ModelRefused("neither masks nor class scores", where="network output")
    if len(lengths) != 1:
        raise ModelRefused(f"parts for {sorted(lengths)} images", where="network output")
    probability = None
    if masks is not None:
        used = masks if average_heads else masks[:, -1:]
        probability = sigmoid(used).mean(1).astype(np.float32)
    scores = None if logits is None else class_scores(logits)
    shown = None if attention is None else np.clip(attention[:, 0], 0, 1).astype(np.float32)
    return [
        Decoded(
            mask=None if probability is None else probability[i],
            scores=None if scores is None else scores[i],
            attention=None if shown is None else shown[i],
        )
        for i in range(lengths.pop())
    ]
