"""Does an exported network say what the trained one says? One tolerance per mode, by reason.

Folding and another engine's order of sums move float32 logits by rounding only; a fast mode rounds
every number, so it is judged by what it changes: masks and scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from renalkit.errors import ModelRefused
from renalkit.runtime.abilities import Precision

Results = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """difference: largest of any result, as a share of the largest value where that is above 1;
    None where it does not count. dice: least of all masks together. score: largest change of a
    class score. auc: largest change of the patients' AUC."""

    difference: float | None
    dice: float
    score: float
    auc: float

    @property
    def plain(self) -> dict[str, Any]:
        return asdict(self)


ALLOWED: Mapping[Precision, Tolerance] = {
    Precision.FP32: Tolerance(difference=1e-4, dice=0.995, score=1e-4, auc=0.002),
    Precision.BF16: Tolerance(difference=None, dice=0.995, score=0.05, auc=0.002),
    Precision.INT8: Tolerance(difference=None, dice=0.995, score=0.05, auc=0.002),
}


@dataclass(frozen=True, slots=True)
class Parity:
    """How far two sets of results are apart.

    images: how many. difference: largest absolute one, by result. largest: value expected, by
    result. dice: of all masks together (cut at probability 0.5), None without masks; 1 where both
    are empty. score: largest change of a class score, None without classes. calls: images whose
    highest class changes.
    """

    images: int
    difference: dict[str, float]
    largest: dict[str, float]
    dice: float | None
    score: float | None
    calls: int

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def problems(self, precision: Precision) -> list[str]:
        """What is beyond the tolerance of a mode."""
        allowed = ALLOWED[precision]
        found: list[str] = []
        if allowed.difference is not None:
            found += [
                f"{name} differs by {value:.3g} at values up to {self.largest[name]:.3g} "
                f"(allowed {allowed.difference:g} of them)"
                for name, value in self.difference.items()
                if not value <= allowed.difference * max(1.0, self.largest[name])
            ]
        if self.dice is not None and not self.dice >= allowed.dice:
            found.append(f"Dice of the masks {self.dice:.4f} (at least {allowed.dice:g})")
        if self.score is not None and not self.score <= allowed.score:
            found.append(f"a class score moves by {self.score:.3g} (allowed {allowed.score:g})")
        return found

    def require(self, precision: Precision, *, where: str) -> None:
        """Raises ModelRefused beyond the tolerance of the mode."""
        found = self.problems(precision)
        if found:
            raise ModelRefused(
                "; ".join(found),
                where=f"{where}, {precision.value}",
                expected="the results of the network that was trained",
                remedy="use fp32"
                if precision is not Precision.FP32
                else "do not use this model here; export it again, or take another engine",
            )


def compare(expected: Results, found: Results) -> Parity:
    """Results of one network on the same images, by name: raw logits of any float type.

    Raises:
        ValueError: other names or shapes; nothing to compare.
    """
    shapes = {name: value.shape for name, value in expected.items()}
    if not shapes or shapes != {name: value.shape for name, value in found.items()}:
        raise ValueError(f"results {shapes} and { ({n: v.shape for n, v in found.items()}) }")
    difference = {
        name: float(np.abs(value.astype(np.float64) - found[name]).max())
        for name, value in expected.items()
    }
    largest = {name: float(np.abs(value).max()) for name, value in expected.items()}
    dice = score = None
    calls = 0
    if "mask_logits" in expected:
        dice = mask_dice(expected["mask_logits"] >= 0, found["mask_logits"] >= 0)
    for name in ("class_logits", "branch_logits"):
        if name in expected:
            before, after = _shares(expected[name]), _shares(found[name])
            score = max(score or 0.0, float(np.abs(before - after).max()))
            if name == "class_logits":
                calls = int((before.argmax(-1) != after.argmax(-1)).sum())
    return Parity(len(next(iter(expected.values()))), difference, largest, dice, score, calls)


def _shares(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Softmax along the last axis."""
    values = logits.astype(np.float64)
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def mask_dice(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """Dice of two masks of one shape; 1 where both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 1.0 if not total else 2.0 * int((one & other).sum()) / total
