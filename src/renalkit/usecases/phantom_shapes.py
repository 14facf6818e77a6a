"""Which masks are simulated scans painted into, and can they be?

Masks are NIfTI volumes of 1 kidney, 2 tumour, 3 cyst, of any orientation: those of a KiTS or
nnU-Net folder, or any others. Scans, maps of instances and labels of single annotators beside them
are not read. Patients are numbered in the order of the paths; no name of a file is written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renalkit.domain.volume import VolumeGrid, affine_of
from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.metrics.volume_lesions import connected_instances
from renalkit.phantom.ct.painted import LEAST_VOXELS, Shapes
from renalkit.phantom.ct.scene import KIDNEY
from renalkit.readers.contract import ReadOptions
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.nifti import LABELS, is_nifti, read_nifti_labels
from renalkit.readers.walk import walk_files
from renalkit.store.files import sha256_file
from renalkit.transforms.volumes import nearest, working_grid
from renalkit.usecases.phantom_plans import MaskFile, ShapePlan
from renalkit.usecases.progress import Progress

_NO_MASK_FOLDERS = ("imagestr", "imagests", "instances", "segmentations", "raw")
_NO_MASK = re.compile(
    r"(imaging|(.*_)?instances|.*_instance-\d+.*|aggregated_(and|or)_seg)\.nii(\.gz)?",
    re.IGNORECASE,
)
_FILES_TOLD = 10
_MOST_MASKS = 9999
_STEP_MM = (0.2, 10.0)
_FIELD_MM = 700.0
_MOST_VOXELS = 400_000_000


@dataclass(frozen=True, slots=True, eq=False)
class ReadShapes:
    """Masks ready to be painted into. source_axes: of the mask's file, "LPS" once resampled."""

    shapes: Shapes
    source_axes: str


def find_masks(source: Path) -> tuple[MaskFile, ...]:
    """The masks of a file or folder, in the order of their paths.

    Raises:
        InputRefused: UNREADABLE, no folder and no NIfTI file; MISSING_FILE, no mask in it.
    """
    if source.is_file() and is_nifti(source):
        found = [source]
    else:
        found = [p for p in walk_files(source) if isinstance(p, Path) and _is_mask(p, source)]
    if not 1 <= len(found) <= _MOST_MASKS:
        raise InputRefused(
            Reason.MISSING_FILE,
            "no masks" if not found else f"{len(found)} masks",
            where=source.name,
            expected=f"1 to {_MOST_MASKS} NIfTI volumes of 1 kidney, 2 tumour, 3 cyst",
            remedy="name the folder they lie in",
        )
    found.sort(key=lambda path: path.relative_to(source).parts)
    return tuple(MaskFile(str(path.resolve()), sha256_file(path)) for path in found)


def _is_mask(path: Path, root: Path) -> bool:
    folders = {part.lower() for part in path.relative_to(root).parts[:-1]}
    return (
        is_nifti(path)
        and not _NO_MASK.fullmatch(path.name)
        and folders.isdisjoint(_NO_MASK_FOLDERS)
    )


def check_masks(plan: ShapePlan, progress: Progress) -> None:
    """Read every mask once, before the first scan is painted.

    Raises:
        ConfigError: with every file that cannot be used and why.
    """
    problems: list[str] = []
    progress.stage("check masks", len(plan.files))
    with DecodeWorker(ReadOptions().limits) as worker:
        for file in plan.files:
            try:
                _read(file, plan, worker)
            except InputRefused as refused:
                problems.append(str(refused))
            progress.advance()
    if len(problems) > _FILES_TOLD:
        more = len(problems) - _FILES_TOLD
        problems = [*problems[:_FILES_TOLD], f"and {more} more files"]
    if problems:
        raise ConfigError(problems, where="--shapes")


def read_shapes(file: MaskFile, plan: ShapePlan) -> ReadShapes:
    """The masks of a file, on the grid that is painted.

    Raises:
        InputRefused: the file changed, is damaged, or holds no masks of kidneys.
    """
    with DecodeWorker(ReadOptions().limits) as worker:
        return _read(file, plan, worker)


def _read(file: MaskFile, plan: ShapePlan, worker: DecodeWorker) -> ReadShapes:
    path = Path(file.path)
    if not path.is_file() or sha256_file(path) != file.sha256:
        raise InputRefused(
            Reason.MISSING_FILE,
            "a mask that is gone or was changed meanwhile",
            where=path.name,
            expected="the file as it was when the command began",
            remedy="leave the masks as they are until the scans are made",
        )
    found = read_nifti_labels(path, ReadOptions(), worker)
    labels, grid = found.pixels, found.grid
    _check_values(sorted(np.unique(labels).tolist()), path.name)
    _check_grid(grid, path.name)
    axes = found.source_axes
    if plan.spacing_mm is not None:
        target = working_grid(grid, plan.spacing_mm)
        _check_size(target, path.name)
        labels = np.stack(list(nearest(labels, grid, target)))
        grid, axes = target, "LPS"
        _check_values(sorted(np.unique(labels).tolist()), path.name)
    if any(plan.around_mm):
        reach = [
            math.ceil(around / step)
            for around, step in zip(plan.around_mm, grid.spacing_mm, strict=True)
        ]
        labels = np.pad(labels, [(n, n) for n in reach])
        grid = _padded(grid, reach)
    _check_size(grid, path.name)
    instances, _ = connected_instances(labels, grid.voxel_mm3)
    return ReadShapes(Shapes(labels, instances, grid), axes)


def _padded(grid: VolumeGrid, reach: Sequence[int]) -> VolumeGrid:
    matrix = np.asarray(grid.affine_lps_mm, np.float64).copy()
    matrix[:3, 3] -= matrix[:3, :3] @ np.asarray(reach, np.float64)
    z, y, x = (size + 2 * n for size, n in zip(grid.shape, reach, strict=True))
    return VolumeGrid((z, y, x), affine_of(matrix))


def _check_values(values: Sequence[int], where: str) -> None:
    if not set(values) <= set(LABELS):
        strange = ", ".join(str(v) for v in values if v not in LABELS)
        raise InputRefused(
            Reason.UNKNOWN_LABEL,
            f"label values {strange[:60]}",
            where=where,
            expected="0 neither, 1 kidney, 2 tumour, 3 cyst",
            remedy="renumber the labels; a scan itself is no mask",
        )
    if KIDNEY not in values:
        raise InputRefused(
            Reason.EMPTY_MASK,
            "masks without a kidney" if any(values) else "a label volume that marks nothing",
            where=where,
            expected="voxels labelled 1 (kidney)",
            remedy="label the kidneys too: the body is laid around them",
        )


def _check_grid(grid: VolumeGrid, where: str) -> None:
    steps = grid.spacing_mm
    fields = [n * step for n, step in zip(grid.shape, steps, strict=True)]
    low, high = _STEP_MM
    if not all(low <= step <= high for step in steps) or max(fields[1:]) > _FIELD_MM:
        words = " x ".join(f"{step:.3g}" for step in steps)
        raise InputRefused(
            Reason.NO_SCALE,
            f"voxels of {words} mm in a field of {fields[1]:.0f} x {fields[2]:.0f} mm",
            where=where,
            expected=f"{low:g} to {high:g} mm, at most {_FIELD_MM:g} mm wide",
            remedy="write the mask with its spacing in mm",
        )


def _check_size(grid: VolumeGrid, where: str) -> None:
    voxels = math.prod(grid.shape)
    if min(grid.shape) < LEAST_VOXELS or voxels > _MOST_VOXELS:
        size = " x ".join(str(n) for n in grid.shape)
        raise InputRefused(
            Reason.TOO_SMALL if voxels <= _MOST_VOXELS else Reason.TOO_LARGE,
            f"masks of {size} voxels",
            where=where,
            expected=f"{LEAST_VOXELS} or more along each axis, {_MOST_VOXELS:,} in all",
            remedy="give a volume, not a slice; set a coarser --spacing for a large one",
        )
