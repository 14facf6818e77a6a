"""How well does a predicted mask agree with the reference mask, in overlap and in distance?

Distances depend on what "surface" means, so the definition is part of every result:

  surfel  pieces of surface in 2x2(x2) neighbourhoods, weighted by their length or area
          (Nikolov et al. 2021; the surface-distance package)
  border  voxels of the mask that touch the background by a face, each counted once (as MONAI)

The same pair of masks can differ by more than 1 mm or 10 points of surface Dice between the two.
Lengths are in mm when the spacing is known, otherwise in pixels; the unit is part of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite, nan, pi

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from renalkit.errors import InputRefused, Reason
from renalkit.metrics.surfels import neighbourhood_codes, surfel_sizes

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class SurfaceDefinition(StrEnum):
    """What a surface element is."""

    SURFEL = "surfel"
    BORDER = "border"


class LengthUnit(StrEnum):
    """Unit of lengths; areas and volumes are its square and cube."""

    MM = "mm"
    PX = "px"


class BothEmpty(StrEnum):
    """What an overlap score is when neither mask marks anything."""

    UNDEFINED = "undefined"
    ONE = "one"


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """How masks are scored. tolerance is in the unit of the spacing (mm, or pixels without)."""

    definition: SurfaceDefinition = SurfaceDefinition.SURFEL
    tolerance: float = 1.0
    percentile: float = 95.0
    both_empty: BothEmpty = BothEmpty.UNDEFINED

    def __post_init__(self) -> None:
        if not (isfinite(self.tolerance) and self.tolerance >= 0):
            raise ValueError(f"tolerance {self.tolerance}: expected a number >= 0")
        if not 0 < self.percentile <= 100:
            raise ValueError(f"percentile {self.percentile}: expected 0 < percentile <= 100")


@dataclass(frozen=True, slots=True)
class SegmentationScores:
    """Agreement of one predicted mask with its reference.

    dice, iou, nsd: in [0, 1]; NaN if both masks are empty and the rule says undefined.
    hd95 (or the percentile of the rule), assd: in `unit`; inf if one mask is empty, NaN if both.
    area_error: predicted minus reference, in unit^2 (2-D) or unit^3 (3-D). diameter_error: the
    same for the diameter of the circle or sphere of equal size, in `unit`.
    note: "" or why a value is not an ordinary number: "both empty", "reference empty",
    "prediction empty".
    """

    dice: float
    iou: float
    hd95: float
    assd: float
    nsd: float
    reference_area: float
    predicted_area: float
    area_error: float
    reference_diameter: float
    predicted_diameter: float
    diameter_error: float
    unit: LengthUnit
    rule: ScoreRule
    note: str = ""


@dataclass(frozen=True, slots=True)
class SurfaceDistances:
    """Distance of every surface element to the other surface, and its size.

    to_prediction (R,) with reference_sizes (R,): from the reference surface; to_reference (P,)
    with prediction_sizes (P,): from the predicted surface. If one mask is empty the distances of
    the other are inf; an empty mask has no elements.
    """

    to_prediction: Floats
    to_reference: Floats
    reference_sizes: Floats
    prediction_sizes: Floats
    definition: SurfaceDefinition
    unit: LengthUnit


def score_segmentation(
    reference: npt.NDArray[np.generic],
    prediction: npt.NDArray[np.generic],
    spacing_mm: Sequence[float] | None = None,
    rule: ScoreRule | None = None,
) -> SegmentationScores:
    """All scores of one pair of masks.

    reference, prediction: (H, W) or (Z, Y, X), bool or integers 0 and 1. spacing_mm: one number
    per axis, or None when unknown (lengths are then in pixels).
    One mask empty: Dice, IoU and NSD 0, distances inf. Both empty: distances NaN, the rest as
    `rule.both_empty` says.

    Raises: InputRefused for different shapes, other values than 0 and 1, or a bad spacing.

    >>> a = np.zeros((6, 6), bool); a[1:3, 1:3] = True
    >>> b = np.zeros((6, 6), bool); b[1:4, 1:3] = True
    >>> s = score_segmentation(a, b, (2.0, 1.0))
    >>> s.dice, s.unit.value, round(s.nsd, 6)
    (0.8, 'mm', 0.870268)
    """
    rule = rule or ScoreRule()
    ref, pred, spacing, unit = _checked(reference, prediction, spacing_mm)
    voxel = float(np.prod(spacing))
    n_ref, n_pred = int(ref.sum()), int(pred.sum())
    n_both, n_any = int((ref & pred).sum()), int((ref | pred).sum())
    undefined = 1.0 if rule.both_empty is BothEmpty.ONE else nan
    if n_any == 0:
        hd95 = assd = nan
        nsd = undefined
    else:
        distances = _surface_distances(ref, pred, spacing, rule.definition, unit)
        hd95 = percentile_distance(distances, rule.percentile)
        assd = average_distance(distances)
        nsd = surface_dice(distances, rule.tolerance)
    ref_diameter = equivalent_diameter(n_ref * voxel, ref.ndim)
    pred_diameter = equivalent_diameter(n_pred * voxel, ref.ndim)
    return SegmentationScores(
        dice=2 * n_both / (n_ref + n_pred) if n_any else undefined,
        iou=n_both / n_any if n_any else undefined,
        hd95=hd95,
        assd=assd,
        nsd=nsd,
        reference_area=n_ref * voxel,
        predicted_area=n_pred * voxel,
        area_error=(n_pred - n_ref) * voxel,
        reference_diameter=ref_diameter,
        predicted_diameter=pred_diameter,
        diameter_error=pred_diameter - ref_diameter,
        unit=unit,
        rule=rule,
        note=_note(n_ref, n_pred),
    )


def surface_distances(
    reference: npt.NDArray[np.generic],
    prediction: npt.NDArray[np.generic],
    spacing_mm: Sequence[float] | None = None,
    definition: SurfaceDefinition = SurfaceDefinition.SURFEL,
) -> SurfaceDistances:
    """Distances between two surfaces, both ways; arguments and refusals as `score_segmentation`."""
    ref, pred, spacing, unit = _checked(reference, prediction, spacing_mm)
    return _surface_distances(ref, pred, spacing, definition, unit)


def percentile_distance(distances: SurfaceDistances, percentile: float = 95.0) -> float:
    """Hausdorff distance at a percentile (100: the maximum): the larger of the two directions.

    surfel: the smallest distance below which at least that share of the surface lies.
    border: the linearly interpolated percentile of the voxel distances.
    inf if one mask is empty, NaN if both are.
    """
    sides = (
        (distances.to_prediction, distances.reference_sizes),
        (distances.to_reference, distances.prediction_sizes),
    )
    if not any(d.size for d, _ in sides):
        return nan
    if not all(d.size for d, _ in sides):
        return inf
    if distances.definition is SurfaceDefinition.BORDER:
        return max(float(np.quantile(d, percentile / 100)) for d, _ in sides)
    return max(_weighted_percentile(d, size, percentile / 100) for d, size in sides)


def directed_averages(distances: SurfaceDistances) -> tuple[float, float]:
    """Mean distance reference -> prediction and prediction -> reference, weighted by size.

    NaN for a direction that has no surface to start from.
    """
    return (
        _weighted_mean(distances.to_prediction, distances.reference_sizes),
        _weighted_mean(distances.to_reference, distances.prediction_sizes),
    )


def average_distance(distances: SurfaceDistances) -> float:
    """ASSD: mean over all elements of both surfaces together, weighted by size."""
    return _weighted_mean(
        np.concatenate([distances.to_prediction, distances.to_reference]),
        np.concatenate([distances.reference_sizes, distances.prediction_sizes]),
    )


def surface_dice(distances: SurfaceDistances, tolerance: float) -> float:
    """NSD: share of both surfaces that lies within `tolerance` of the other one.

    Nikolov et al. 2021, eq. of the surface DSC. 0 if one mask is empty, NaN if both are.
    """
    total = distances.reference_sizes.sum() + distances.prediction_sizes.sum()
    if total == 0:
        return nan
    near = (
        distances.reference_sizes[distances.to_prediction <= tolerance].sum()
        + distances.prediction_sizes[distances.to_reference <= tolerance].sum()
    )
    return float(near / total)


def equivalent_diameter(size: float, ndim: int) -> float:
    """Diameter of the circle (ndim 2) or sphere (ndim 3) of that area or volume."""
    if ndim == 2:
        return 2 * (size / pi) ** 0.5
    return (6 * size / pi) ** (1 / 3)


def dice_from_iou(iou: float) -> float:
    """Dice of one pair of masks with that IoU: 2 IoU / (1 + IoU)."""
    return 2 * iou / (1 + iou)


def _surface_distances(
    ref: Mask,
    pred: Mask,
    spacing: tuple[float, ...],
    definition: SurfaceDefinition,
    unit: LengthUnit,
) -> SurfaceDistances:
    either = ref | pred
    if not either.any():
        none = np.zeros(0)
        return SurfaceDistances(none, none, none, none, definition, unit)
    box = _bounding_box(either)
    ref_on, ref_sizes = _elements(ref[box], spacing, definition)
    pred_on, pred_sizes = _elements(pred[box], spacing, definition)
    return SurfaceDistances(
        _distance_to(pred_on, spacing)[ref_on],
        _distance_to(ref_on, spacing)[pred_on],
        ref_sizes,
        pred_sizes,
        definition,
        unit,
    )


def _elements(
    mask: Mask, spacing: tuple[float, ...], definition: SurfaceDefinition
) -> tuple[Mask, Floats]:
    """Where the surface elements lie (a mask), and the size of each in array order."""
    if definition is SurfaceDefinition.BORDER:
        inner = np.asarray(ndimage.binary_erosion(mask), np.bool_)
        border = mask & ~inner
        return border, np.ones(int(border.sum()))
    codes = neighbourhood_codes(mask)
    on = (codes != 0) & (codes != 2 ** (2**mask.ndim) - 1)
    return on, surfel_sizes(spacing)[codes[on]]


def _distance_to(surface: Mask, spacing: tuple[float, ...]) -> Floats:
    """Distance of every place to the nearest element of a surface; inf if there is none."""
    if not surface.any():
        return np.full(surface.shape, inf)
    return np.asarray(ndimage.distance_transform_edt(~surface, sampling=spacing), dtype=np.float64)


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """Smallest box around a mask that marks something."""
    box: list[slice] = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        places = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(box)


def _weighted_mean(values: Floats, weights: Floats) -> float:
    if values.size == 0:
        return nan
    return float((values * weights).sum() / weights.sum())


def _weighted_percentile(values: Floats, weights: Floats, share: float) -> float:
    # Sorted by weight within equal distances so that the sums, and with them the answer, do not
    # depend on where in the image an element lies.
    order = np.lexsort((weights, values))
    cumulative = np.cumsum(weights[order]) / weights.sum()
    place = int(np.searchsorted(cumulative, share))
    return float(values[order][min(place, values.size - 1)])


def _note(n_reference: int, n_prediction: int) -> str:
    if n_reference == 0 and n_prediction == 0:
        return "both empty"
    if n_reference == 0:
        return "reference empty"
    return "prediction empty" if n_prediction == 0 else ""


def _checked(
    reference: npt.NDArray[np.generic],
    prediction: npt.NDArray[np.generic],
    spacing_mm: Sequence[float] | None,
) -> tuple[Mask, Mask, tuple[float, ...], LengthUnit]:
    if reference.shape != prediction.shape:
        raise InputRefused(
            Reason.MASK_MISMATCH,
            f"prediction has shape {prediction.shape}, reference {reference.shape}",
            expected="masks of one shape, both in source pixels",
            remedy="map the prediction back to the source image before scoring",
        )
    if reference.ndim not in (2, 3):
        raise InputRefused(
            Reason.MASK_MISMATCH,
            f"masks with {reference.ndim} axes",
            expected="2 (image) or 3 (volume)",
        )
    if spacing_mm is None:
        spacing, unit = (1.0,) * reference.ndim, LengthUnit.PX
    else:
        spacing, unit = tuple(float(s) for s in spacing_mm), LengthUnit.MM
    if len(spacing) != reference.ndim or not all(isfinite(s) and s > 0 for s in spacing):
        raise InputRefused(
            Reason.NO_SCALE,
            f"spacing {spacing} for masks with {reference.ndim} axes",
            expected="one positive number in mm per axis, or None when it is unknown",
        )
    return (_binary(reference, "reference"), _binary(prediction, "prediction"), spacing, unit)


def _binary(mask: npt.NDArray[np.generic], where: str) -> Mask:
    if mask.dtype == np.bool_:
        return mask.astype(np.bool_, copy=False)
    # A probability map or a label map silently cast to bool would score a mask nobody drew.
    if not np.issubdtype(mask.dtype, np.integer) or bool(np.any((mask != 0) & (mask != 1))):
        raise InputRefused(
            Reason.BAD_ANNOTATION,
            f"mask of type {mask.dtype} with values other than 0 and 1",
            where=where,
            expected="bool, or integers 0 and 1",
            remedy="threshold probabilities, select one label of a label map",
        )
    return mask.astype(np.bool_)
