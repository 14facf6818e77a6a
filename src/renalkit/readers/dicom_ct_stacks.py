"""Which CT slices make one volume, in which order, on which grid, and what is odd about that?

Works on headers alone. Slices of one series that share size, spacing, direction and frame of
reference are sorted along their normal, from the feet to the head. Then:

  same place, same pixels      the later file is skipped
  same place, other pixels     several scans in one series (contrast phases): separated by the first
                               header value, or failing that the order of numbers, that does it
                               cleanly; refused when nothing does
  sheared                      noted; the affine holds the shear
  oblique                      noted; the affine holds the angles
  gap or uneven distances      noted; each slice keeps its own place. A gap wider than 10 mm, in
                               which a mass could hide, is refused
  off one line, not axial,     refused or skipped
  fewer than three

What is noted does no harm: working grids (`transforms.volumes`) are upright and even, and results
return to the slices as they were.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from renalkit.domain.study import Defect
from renalkit.domain.volume import VolumeGrid, affine_of, canonical_grid
from renalkit.errors import InputRefused, Reason
from renalkit.readers.dicom_ct_slice import CtSlice

SamePixels = Callable[[CtSlice, CtSlice], bool]
Floats = npt.NDArray[np.float64]

_LEAST_SLICES = 3
_SAME_PLACE_MM = 0.01
_EVEN_SHARE = 0.05
"""Of the usual distance: places this near to even ones count as even."""
_GAP_SHARE = 1.5
_WIDEST_GAP_MM = 10.0
_AXIAL = float(np.cos(np.radians(45)))
_NOTED_DEG = 0.5
_FIELD_MM = (50.0, 1200.0)
_AGAIN = "copy or export the whole series again"


@dataclass(frozen=True, slots=True)
class SliceStack:
    """The slices of one volume from the feet to the head.

    grid: canonical; its frame k is slice k with rows and columns turned as `source_axes` says.
    """

    slices: tuple[CtSlice, ...]
    grid: VolumeGrid
    source_axes: str
    defects: tuple[Defect, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A slice that is in no stack: skipped, or refused where it should have been."""

    slice: CtSlice
    defect: Defect
    refused: bool


def stacks_of(slices: Sequence[CtSlice], same_pixels: SamePixels) -> Iterator[SliceStack | LeftOut]:
    """The stacks of one series, and every slice that is in none. same_pixels compares two slices
    at one place; it is asked only for such."""
    groups: dict[tuple[object, ...], list[CtSlice]] = defaultdict(list)
    for one in slices:
        shape = (one.about.rows, one.about.cols, one.frame_of_reference)
        directions = (*np.round((*one.row, *one.column), 3).tolist(),)
        groups[(*shape, *np.round(one.spacing_mm, 4).tolist(), *directions)].append(one)
    for _, group in sorted(groups.items(), key=lambda g: (-len(g[1]), repr(g[0]))):
        yield from _stacks_of_group(group, same_pixels)


def _stacks_of_group(
    group: list[CtSlice], same_pixels: SamePixels
) -> Iterator[SliceStack | LeftOut]:
    if abs(group[0].normal[2]) < _AXIAL:
        defect = Defect(Reason.NOT_AXIAL, "slices that are not across the body")
        yield from (LeftOut(one, defect, refused=False) for one in group)
        return
    # Phases may share whole slices of air: scans are told apart before copies are looked for.
    kept, copies, parts = group, list[CtSlice](), _separated(group)
    if parts is None:
        kept, copies = _without_copies(group, same_pixels)
        parts = _separated(kept)
    again = Defect(Reason.DUPLICATE_SLICE, "the same slice again")
    yield from (LeftOut(one, again, refused=False) for one in copies)
    if parts is None:
        crowded = sum(len(c) - 1 for c in _places(kept))
        words = f"{crowded} of {len(kept)} slices lie where another with other pixels lies, and "
        defect = Defect(
            Reason.DUPLICATE_SLICE,
            f"{words}nothing in the headers tells scans apart; separate them into series",
        )
        yield from (LeftOut(one, defect, refused=True) for one in kept)
        return
    noted: tuple[Defect, ...] = ()
    if len(parts) > 1:
        words = f"{len(parts)} scans in one series, separated"
        noted = (Defect(Reason.SEVERAL_ACQUISITIONS, words),)
    for part in parts:
        try:
            yield stack_of(part, noted)
        except InputRefused as refused:
            remedy = f"; {refused.remedy}" if refused.remedy else ""
            defect = Defect(refused.reason, f"{refused.found}{remedy}")
            yield from (LeftOut(one, defect, refused=True) for one in part)


def _without_copies(
    group: Sequence[CtSlice], same_pixels: SamePixels
) -> tuple[list[CtSlice], list[CtSlice]]:
    """The slices that differ from all others at their place, and those that do not."""
    kept: list[CtSlice] = []
    copies: list[CtSlice] = []
    for cluster in _places(group):
        different: list[CtSlice] = []
        for one in cluster:
            known = any(same_pixels(one, other) for other in different)
            (copies if known else different).append(one)
        kept += different
    return kept, copies


def _along(one: CtSlice) -> float:
    """Place along the normal, mm, rising towards the head."""
    normal = one.normal
    return float(np.asarray(one.position) @ normal) * (1.0 if normal[2] > 0 else -1.0)


def _places(group: Sequence[CtSlice]) -> list[list[CtSlice]]:
    """Slices by place, from the feet up; those at one place in the order of their numbers."""
    clusters: list[list[CtSlice]] = []
    for one in sorted(group, key=_along):
        if clusters and _along(one) - _along(clusters[-1][0]) < _SAME_PLACE_MM:
            clusters[-1].append(one)
        else:
            clusters.append([one])
    return [sorted(c, key=lambda s: (s.number or 0, str(s.path))) for c in clusters]


def _separated(group: list[CtSlice]) -> list[list[CtSlice]] | None:
    """The scans of a group, one slice per place each; None when nothing separates them."""
    places = _places(group)
    if all(len(c) == 1 for c in places):
        return [group]
    for name in group[0].scan:
        parts: dict[str, list[CtSlice]] = defaultdict(list)
        for one in group:
            parts[one.scan[name]].append(one)
        if _clean(list(parts.values())):
            return [parts[key] for key in sorted(parts, key=lambda k: _first(parts[k]))]
    if any(one.number is None for one in group) or len({s.number for s in group}) < len(group):
        return None
    # One scan after another: a new one begins where a place comes again.
    place_of = {id(one): i for i, cluster in enumerate(places) for one in cluster}
    runs: list[list[CtSlice]] = [[]]
    for one in sorted(group, key=lambda s: s.number or 0):
        if place_of[id(one)] in {place_of[id(other)] for other in runs[-1]}:
            runs.append([])
        runs[-1].append(one)
    whole = all(2 * len(run) > len(places) for run in runs)
    return runs if whole and _clean(runs) else None


def _first(part: Sequence[CtSlice]) -> tuple[int, str]:
    return min((one.number or 0, str(one.path)) for one in part)


def _clean(parts: Sequence[Sequence[CtSlice]]) -> bool:
    """Whether each part is a scan of its own: enough slices, no place twice."""
    return len(parts) > 1 and all(
        len(part) >= _LEAST_SLICES and all(len(c) == 1 for c in _places(part)) for part in parts
    )


def stack_of(slices: Sequence[CtSlice], noted: Sequence[Defect] = ()) -> SliceStack:
    """The volume that slices at different places make.

    Raises:
        InputRefused: TOO_FEW_SLICES, BAD_GEOMETRY (not on one line), SLICE_GAP, NO_SCALE,
            NOT_AXIAL.
    """
    ordered = sorted(slices, key=_along)
    first = ordered[0]
    if len(ordered) < _LEAST_SLICES:
        raise InputRefused(
            Reason.TOO_FEW_SLICES,
            f"{len(ordered)} CT slices that belong together",
            expected=f"at least {_LEAST_SLICES}",
            remedy=_AGAIN,
        )
    _check_field(first)
    positions = np.asarray([one.position for one in ordered], np.float64)
    line = positions[-1] - positions[0]
    way = line / np.linalg.norm(line)
    along = (positions - positions[0]) @ way
    off = np.linalg.norm(positions - positions[0] - along[:, None] * way, axis=1)
    if off.max() > max(0.1, 0.25 * min(first.spacing_mm)):
        raise InputRefused(
            Reason.BAD_GEOMETRY,
            f"slice {int(off.argmax()) + 1} of {len(ordered)} lies {off.max():.1f} mm beside the "
            "line of the others",
            expected="slices one behind the other",
            remedy=_AGAIN,
        )
    step_mm, places, uneven = _spaced(along)
    steps = np.stack(
        [
            way * step_mm,
            np.asarray(first.column) * first.spacing_mm[0],
            np.asarray(first.row) * first.spacing_mm[1],
        ],
        axis=1,
    )
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = steps, positions[0]
    shape = (len(ordered), first.about.rows, first.about.cols)
    grid, axes = canonical_grid(shape, matrix)
    if axes[0] != "S":
        raise InputRefused(
            Reason.NOT_AXIAL,
            "slices that follow one another sideways",
            expected="slices from the feet to the head",
            remedy=_AGAIN,
        )
    grid = VolumeGrid(grid.shape, affine_of(grid.affine_lps_mm), places)
    return SliceStack(tuple(ordered), grid, axes, (*noted, *uneven, *_angles(grid)))


def _check_field(one: CtSlice) -> None:
    extents = (one.spacing_mm[0] * one.about.rows, one.spacing_mm[1] * one.about.cols)
    if min(extents) < _FIELD_MM[0] or max(extents) > _FIELD_MM[1]:
        raise InputRefused(
            Reason.NO_SCALE,
            f"a CT picture of {extents[0]:.0f} x {extents[1]:.0f} mm",
            expected=f"{_FIELD_MM[0]:.0f} to {_FIELD_MM[1]:.0f} mm: is the spacing in mm?",
            remedy="export the series again, its spacing is written in another unit",
        )


def _spaced(along: Floats) -> tuple[float, tuple[float, ...] | None, list[Defect]]:
    """Step in mm, places of slices in steps (None when even), and what was odd.

    Raises:
        InputRefused: SLICE_GAP, a gap wider than may be bridged.
    """
    even_mm = float(along[-1]) / (len(along) - 1)
    if np.abs(along - even_mm * np.arange(len(along))).max() <= _EVEN_SHARE * even_mm:
        return even_mm, None, []
    apart = np.diff(along)
    step_mm = float(np.median(apart))
    places = tuple((along / step_mm).tolist())
    gaps = np.flatnonzero(apart >= _GAP_SHARE * step_mm)
    words = ", ".join(f"{apart[i]:.1f} mm after slice {i + 1}" for i in gaps[:5])
    words += f" and {len(gaps) - 5} more" if len(gaps) > 5 else ""
    if gaps.size and apart.max() > _WIDEST_GAP_MM + _SAME_PLACE_MM:
        raise InputRefused(
            Reason.SLICE_GAP,
            f"slices missing: {words}, elsewhere {step_mm:.1f} mm",
            expected=f"no gap wider than {_WIDEST_GAP_MM:.0f} mm",
            remedy=_AGAIN,
        )
    if gaps.size:
        words = f"slices missing: {words}, elsewhere {step_mm:.1f} mm; bridged"
        return step_mm, places, [Defect(Reason.SLICE_GAP, words)]
    words = f"distances of {apart.min():.2f} to {apart.max():.2f} mm between slices"
    return step_mm, places, [Defect(Reason.UNEVEN_SLICES, words)]


def _angles(grid: VolumeGrid) -> Iterator[Defect]:
    if grid.shear_deg > _NOTED_DEG:
        words = f"slices sheared by {grid.shear_deg:.1f} degrees, as by a tilted gantry"
        yield Defect(Reason.GANTRY_TILT, words)
    elif grid.turn_deg > _NOTED_DEG:
        words = f"slices up to {grid.turn_deg:.1f} degrees oblique to the body"
        yield Defect(Reason.OBLIQUE, words)
