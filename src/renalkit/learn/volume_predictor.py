"""What does a trained network say about patches and crops of CT volumes, when torch computes it?

Shape legend: b patches, c input channels, k outputs or classes, (z,y,x) voxels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from renalkit.errors import ModelRefused
from renalkit.learn.outputs import Net
from renalkit.learn.predictor import evaluating, load_trained

Floats = npt.NDArray[np.float32]


def volume_scorer(net: Net) -> Callable[[Floats], Floats]:
    """The network as a function of arrays, where it lies, in evaluation mode, without gradients.

    (b,c,z,y,x) float32 in -1 to 1 -> mask logits (b,k,z,y,x) of the finest head, or class logits
    (b,k), float32: logits, not probabilities. The function raises InputRefused for what the network
    cannot take, and ModelRefused for results that are not finite.
    """
    parameter: Any = next(iter(net.parameters()), None)
    device = torch.device("cpu") if parameter is None else parameter.device

    def score(image: Floats) -> Floats:
        with evaluating(net):
            found = net(torch.from_numpy(image).to(device))
            logits = found.class_logits if found.mask_logits is None else found.mask_logits[-1]
            values = logits.float().cpu().numpy()
        if not np.isfinite(values).all():
            raise ModelRefused(
                "a result holds NaN or infinite values",
                where="network output",
                expected="finite logits",
                remedy="train again or use other weights; nothing was decided from this",
            )
        return values

    return score


def load_volume_net(build: Callable[[], Net], weights: Path, sha256: str | None = None) -> Net:
    """A trained network in evaluation mode, on the CPU.

    Args:
        build: the architecture it was trained with.
        weights: what training left.
        sha256: expected digest of the file; None trusts the content as far as it fits.

    Raises:
        ModelRefused: see `predictor.load_weights`.
    """
    net = build()
    load_trained(net, weights, sha256)
    return net
