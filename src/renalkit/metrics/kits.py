"""How do label volumes score by the rules of the KiTS challenges?

Three nested classes: kidney and masses (labels 1, 2, 3), masses (2, 3), tumour (2). For each, Dice
and the surface Dice of surfels at the tolerance that readers of KiTS21 showed between themselves.
Neither volume marking a class scores 1, one of them 0. The official evaluator is meant to refuse
volumes of other shape or spacing, but its guards never fire; here they do, and otherwise the
numbers are the same.

Source: github.com/neheller/kits23 (kits23/configuration/labels.py, evaluation/metrics.py); Heller
et al., arXiv:2307.01984.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from renalkit.domain.volume import CYST, KIDNEY, TUMOUR, VolumeGrid
from renalkit.errors import InputRefused, Reason
from renalkit.metrics.segmentation import BothEmpty, ScoreRule, score_segmentation

_SHIFTED_VOXELS = 0.1


@dataclass(frozen=True, slots=True)
class EvaluationClass:
    """Labels that count as one, and the tolerance of its surface Dice in mm."""

    labels: tuple[int, ...]
    tolerance_mm: float


CLASSES: Mapping[str, EvaluationClass] = MappingProxyType(
    {
        "kidney and mass": EvaluationClass((KIDNEY, TUMOUR, CYST), 1.0330772532390826),
        "mass": EvaluationClass((TUMOUR, CYST), 1.1328796488598762),
        "tumour": EvaluationClass((TUMOUR,), 1.1498198361434828),
    }
)


@dataclass(frozen=True, slots=True)
class KitsScore:
    """Of one class: Dice and surface Dice in [0, 1]."""

    dice: float
    surface_dice: float


def score_kits(
    reference: npt.NDArray[np.integer],
    prediction: npt.NDArray[np.integer],
    grid: VolumeGrid,
    prediction_grid: VolumeGrid,
) -> dict[str, KitsScore]:
    """Both scores by evaluation class. reference, prediction: labels 0 to 3, (Z,Y,X).

    Raises:
        InputRefused: MASK_MISMATCH, volumes of other shape or place; UNKNOWN_LABEL, other values;
            UNEVEN_SLICES, for which a surface has no one spacing.
    """
    if reference.shape != grid.shape or prediction.shape != prediction_grid.shape:
        raise ValueError(f"labels {reference.shape}, {prediction.shape} on other grids")
    apart = prediction_grid.shift_from(grid)
    if apart > _SHIFTED_VOXELS:
        raise InputRefused(
            Reason.MASK_MISMATCH,
            f"a prediction of {prediction.shape} voxels, up to {apart:.2f} voxels beside the "
            f"reference of {reference.shape}",
            expected="the reference's own grid",
            remedy="write the prediction on the grid of the scan",
        )
    if grid.slice_at is not None:
        raise InputRefused(
            Reason.UNEVEN_SLICES,
            "slices at uneven distances",
            expected="one spacing",
            remedy="resample both label volumes to an even grid",
        )
    for name, labels in (("reference", reference), ("prediction", prediction)):
        strange = sorted(set(np.unique(labels).tolist()) - {0, KIDNEY, TUMOUR, CYST})
        if strange:
            raise InputRefused(
                Reason.UNKNOWN_LABEL,
                f"label values {', '.join(map(str, strange[:5]))}",
                where=name,
                expected="0 neither, 1 kidney, 2 tumour, 3 cyst",
                remedy="renumber the labels",
            )
    found: dict[str, KitsScore] = {}
    for name, rule in CLASSES.items():
        scores = score_segmentation(
            np.isin(reference, rule.labels),
            np.isin(prediction, rule.labels),
            grid.spacing_mm,
            ScoreRule(tolerance=rule.tolerance_mm, both_empty=BothEmpty.ONE),
        )
        found[name] = KitsScore(scores.dice, scores.nsd)
    return found
