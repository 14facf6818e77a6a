"""What does a NIfTI volume hold, in Hounsfield units or labels, and where is it in the patient?

The header is checked before anything is allocated; voxels are decoded in the decode worker (task
"nifti"), slab by slab into int16 or labels, so no floating-point copy of a volume is ever made.
Compressed files are read to their end: nothing past the declared voxels is inflated, and the CRC
must be right (nibabel checks neither). The array is turned, without interpolation, to run from the
feet to the head, from front to back and from right to left; `Volume.source_axes` undoes it.

Orientation: the sform where it is set, else the qform (nifti1.h, methods 3 and 2); a file with
neither does not say where left is and is refused. Where both are set and differ, the sform is used
with a warning, or the file refused where they differ in an axis. Coordinates of NIfTI are RAS, ours
LPS.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from renalkit.domain.image import Mode, Source, pixel_sha256
from renalkit.domain.study import Defect
from renalkit.domain.volume import (
    LabelMap,
    Volume,
    VolumeGrid,
    canonical_grid,
    from_canonical,
    to_canonical,
)
from renalkit.errors import DecodeFailed, InputRefused, Reason
from renalkit.readers.contract import Decoder, ReadOptions
from renalkit.store.files import sha256_file

SUFFIXES = (".nii", ".nii.gz")
KIND = "nifti"
LABELS = (0, 1, 2, 3)

_HEADERS = {348: (nibabel.Nifti1Header, 352), 540: (nibabel.Nifti2Header, 544)}
_UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_LEAST_HU = -1024
_SHIFTED_VOXELS = 0.1
_FORMS_APART_VOXELS = 0.5
_FIELD_MM = (50.0, 1200.0)
_SLAB_BYTES = 16 << 20
_WRITE_AGAIN = "write the file again from its source"


@dataclass(frozen=True, slots=True)
class NiftiHead:
    """What the header says, checked.

    shape: (I,J,K) of the file, first index fastest. affine_lps_mm: index (i, j, k, 1) -> LPS mm.
    scale: (slope, intercept) of stored values.
    """

    shape: tuple[int, int, int]
    affine_lps_mm: npt.NDArray[np.float64]
    dtype: np.dtype[Any]
    offset: int
    scale: tuple[float, float]
    defects: tuple[Defect, ...]

    @property
    def data_bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class NiftiVolume:
    """Voxels (Z,Y,X) turned to the body's axes: int16 HU, or uint8 labels."""

    pixels: npt.NDArray[Any] = field(repr=False)
    grid: VolumeGrid
    source_axes: str
    defects: tuple[Defect, ...]


def is_nifti(path: Path) -> bool:
    """Whether a file is named as a single-file NIfTI volume."""
    return path.name.lower().endswith(SUFFIXES)


def read_nifti_ct(path: Path, options: ReadOptions, worker: Decoder) -> NiftiVolume:
    """A CT volume in HU.

    Raises:
        InputRefused: see `read_head`; NON_FINITE, TOO_SMALL, NO_SCALE, and damage of the file
            (TRUNCATED, CODEC_ERROR, INFLATE_LIMIT).
    """
    found = _read(path, options, worker, "hu")
    _, rows, cols = found.grid.shape
    _, dy, dx = found.grid.spacing_mm
    field_mm = (rows * dy, cols * dx)
    if min(field_mm) < _FIELD_MM[0] or max(field_mm) > _FIELD_MM[1]:
        raise InputRefused(
            Reason.NO_SCALE,
            f"a CT picture of {field_mm[0]:.0f} x {field_mm[1]:.0f} mm",
            expected=f"{_FIELD_MM[0]:.0f} to {_FIELD_MM[1]:.0f} mm: is the spacing in mm?",
            remedy=_WRITE_AGAIN,
        )
    return found


def read_nifti_labels(path: Path, options: ReadOptions, worker: Decoder) -> NiftiVolume:
    """A label volume, uint8; floats that are whole numbers are taken and noted.

    Raises:
        InputRefused: see `read_head`; BAD_ANNOTATION (values that are no labels), and damage.
    """
    return _read(path, options, worker, "labels")


def _read(path: Path, options: ReadOptions, worker: Decoder, kind: str) -> NiftiVolume:
    request = {"limits": asdict(options.limits), "kind": kind}
    try:
        decoded = worker.run("nifti", path, request)
    except InputRefused as refused:
        refused.where = refused.where or path.name
        raise
    info = decoded.info
    affine = np.asarray(info["affine"], np.float64)
    shape = tuple(int(n) for n in info["shape"])
    grid, axes = canonical_grid((shape[0], shape[1], shape[2]), affine)
    # Decoded as the file lies, last index slowest: (K,J,I).
    pixels = to_canonical(decoded.pixels.transpose(2, 1, 0), axes)
    defects = tuple(Defect(Reason(reason), words) for reason, words in info["defects"])
    return NiftiVolume(pixels, grid, axes, defects)


def volume_of(found: NiftiVolume, path: Path, keyed_path: str) -> Volume:
    """The volume as a study holds it."""
    return Volume(
        pixels=found.pixels,
        sha256=pixel_sha256(found.pixels),
        mode=Mode.CT,
        source=Source(sha256_file(path), keyed_path, KIND),
        spacing_mm=found.grid.spacing_mm[1:],
        grid=found.grid,
        source_axes=found.source_axes,
    )


def labels_on(volume: VolumeGrid, labels: NiftiVolume, *, where: str = "") -> LabelMap:
    """Labels for a volume, whichever way their file was turned.

    Raises:
        InputRefused: MASK_MISMATCH, another shape or place; UNKNOWN_LABEL, values beyond kidney,
            tumour and cyst.
    """
    if labels.grid.shape != volume.shape:
        raise InputRefused(
            Reason.MASK_MISMATCH,
            f"labels of {labels.grid.shape} voxels on a volume of {volume.shape}",
            where=where,
            expected="the volume's own grid",
            remedy="write the labels on the grid of the volume they were drawn on",
        )
    apart = labels.grid.shift_from(volume)
    if apart > _SHIFTED_VOXELS:
        raise InputRefused(
            Reason.MASK_MISMATCH,
            f"labels that lie up to {apart:.2f} voxels beside the volume",
            where=where,
            expected=f"the same affine, within {_SHIFTED_VOXELS} voxels",
            remedy="write the labels with the affine of the volume they were drawn on",
        )
    strange = sorted(set(np.unique(labels.pixels).tolist()) - set(LABELS))
    if strange:
        raise InputRefused(
            Reason.UNKNOWN_LABEL,
            f"label values {', '.join(map(str, strange[:5]))}",
            where=where,
            expected="0 neither, 1 kidney, 2 tumour, 3 cyst",
            remedy="renumber the labels",
        )
    return LabelMap(labels.pixels, pixel_sha256(labels.pixels))


def label_defects(labels: LabelMap, volume: Volume) -> list[Defect]:
    """What is odd about labels on a volume: none at all, or kidneys that are no kidney tissue."""
    values: list[npt.NDArray[Any]] = []
    marked = 0
    for k in range(volume.n_frames):
        drawn = np.asarray(labels.pixels[k])
        marked += int(np.count_nonzero(drawn))
        if (drawn == 1).any():
            values.append(np.asarray(volume.pixels[k])[drawn == 1])
    if not marked:
        return [Defect(Reason.EMPTY_MASK, "a label volume that marks nothing")]
    if values:
        median = float(np.median(np.concatenate(values)))
        if not -20 <= median <= 500:
            words = f"voxels labelled kidney have a median of {median:.0f} HU: other labels?"
            return [Defect(Reason.MASK_MISMATCH, words)]
    return []


# ---- the header ----------------------------------------------------------------------------


def _bad(reason: Reason, found: str, expected: str) -> InputRefused:
    return InputRefused(reason, found, expected=expected, remedy=_WRITE_AGAIN)


def read_head(raw: bytes, limit_voxels: int) -> NiftiHead:
    """Check the first bytes of a (decompressed) file; 544 of them are enough.

    Raises:
        InputRefused: TRUNCATED, NOT_AN_IMAGE (no NIfTI), TOO_LARGE, BAD_PIXEL_DESCRIPTION
            (dimensions, type, offset), BAD_RESCALE, BAD_GEOMETRY, ORIENTATION_CONFLICT, NO_SCALE.
    """
    if len(raw) < 352:
        raise _bad(Reason.TRUNCATED, f"a NIfTI header of {len(raw)} bytes", "352 or more")
    little = int.from_bytes(raw[:4], "little")
    big = int.from_bytes(raw[:4], "big")
    size = little if little in _HEADERS else big
    if size not in _HEADERS or len(raw) < _HEADERS[size][1]:
        raise _bad(Reason.NOT_AN_IMAGE, "content that is not NIfTI", "a .nii or .nii.gz file")
    kind, least_offset = _HEADERS[size]
    magic = raw[344:348] if size == 348 else raw[4:8]
    if magic[:3] not in (b"n+1", b"n+2"):
        raise _bad(
            Reason.FORMAT_REFUSED,
            "a header whose voxels lie in another file, or a foreign one",
            "NIfTI in one file (magic n+1 or n+2)",
        )
    endianness = "<" if size == little else ">"
    header = kind(raw[:size], endianness=endianness, check=False)
    defects: list[Defect] = []
    shape = _shape(header, limit_voxels)
    dtype = _dtype(header)
    offset = float(header["vox_offset"])
    if not (np.isfinite(offset) and least_offset <= offset <= 1 << 24 and offset == int(offset)):
        raise _bad(
            Reason.BAD_PIXEL_DESCRIPTION,
            f"voxels said to begin at byte {offset:g}",
            f"{least_offset} or a little more",
        )
    if raw[size] and not _extension_fits(raw, size, int(offset), endianness):
        words = "a header extension of impossible size; ignored"
        defects.append(Defect(Reason.BAD_ELEMENT, words))
    affine = _affine(header, shape, defects)
    return NiftiHead(shape, affine, dtype, int(offset), _scale(header), tuple(defects))


def _shape(header: Any, limit_voxels: int) -> tuple[int, int, int]:
    dim = [int(n) for n in header["dim"]]
    sizes = dim[1 : 1 + dim[0]] if 1 <= dim[0] <= 7 else []
    if not sizes or min(sizes) < 1:
        raise _bad(
            Reason.BAD_PIXEL_DESCRIPTION,
            f"dimensions {dim[: 1 + max(0, min(dim[0], 7))]}",
            "three positive sizes",
        )
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    sizes += [1] * (3 - len(sizes))
    voxels = 1
    for n in sizes:
        voxels *= n
    if voxels > limit_voxels:
        raise _bad(Reason.TOO_LARGE, f"{voxels} voxels", f"at most {limit_voxels}")
    if len(sizes) > 3:
        raise InputRefused(
            Reason.LAYOUT_UNKNOWN,
            f"a volume of {len(sizes)} dimensions {tuple(sizes)}",
            expected="one 3-D volume per file",
            remedy="write each phase or channel as a file of its own",
        )
    return sizes[0], sizes[1], sizes[2]


def _dtype(header: Any) -> np.dtype[Any]:
    try:
        dtype = np.dtype(header.get_data_dtype())
    except (KeyError, HeaderDataError):
        dtype = np.dtype("V")
    bits = int(header["bitpix"])
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise _bad(
            Reason.BAD_PIXEL_DESCRIPTION,
            f"voxels of type {int(header['datatype'])}",
            "whole numbers or floats of at most 8 bytes",
        )
    if bits not in (0, 8 * dtype.itemsize):
        raise _bad(
            Reason.BAD_PIXEL_DESCRIPTION,
            f"{bits} bits for voxels of {8 * dtype.itemsize}",
            "one size",
        )
    return dtype


def _extension_fits(raw: bytes, size: int, offset: int, endianness: str) -> bool:
    begin = size + 4
    if offset < begin + 8 or len(raw) < begin + 4:
        return False
    order = "little" if endianness == "<" else "big"
    declared = int.from_bytes(raw[begin : begin + 4], order, signed=True)
    return 8 <= declared <= offset - begin


def _scale(header: Any) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    # nifti1.h: a slope of 0 means that values are not scaled. nibabel writes NaN in both for that.
    if slope == 0 or (np.isnan(slope) and np.isnan(intercept)):
        return 1.0, 0.0
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise _bad(
            Reason.BAD_RESCALE,
            f"a scale of slope {slope:g} and intercept {intercept:g}",
            "finite numbers, or a slope of 0 for none",
        )
    return slope, intercept


def _affine(
    header: Any, shape: tuple[int, int, int], defects: list[Defect]
) -> npt.NDArray[np.float64]:
    """The LPS affine in mm out of sform or qform."""
    unit = _UNIT_MM.get(int(header["xyzt_units"]) & 7)
    if unit is None:
        raise _bad(Reason.NO_SCALE, "an unknown unit of length", "millimetres")
    sform = header.get_sform() if int(header["sform_code"]) > 0 else None
    qform = _qform(header) if int(header["qform_code"]) > 0 else None
    if sform is None and qform is None:
        raise _bad(
            Reason.BAD_GEOMETRY,
            "neither sform nor qform: the file does not say where left is",
            "an orientation (sform_code or qform_code above 0)",
        )
    chosen = sform if sform is not None else qform
    steps = np.asarray(chosen)[:3, :3]
    lengths = np.linalg.norm(steps, axis=0)
    usable = np.isfinite(np.asarray(chosen)).all() and lengths.min() > 0
    if not usable or abs(np.linalg.det(steps / lengths)) < 0.1:
        raise _bad(
            Reason.BAD_GEOMETRY,
            "an affine that is not finite, singular or far from perpendicular",
            "three independent directions in mm",
        )
    if sform is not None and qform is not None:
        _compare_forms(sform, qform, shape, defects)
    flip = np.diag([-unit, -unit, unit, 1.0])
    return flip @ np.asarray(chosen, np.float64)


def _qform(header: Any) -> npt.NDArray[np.float64]:
    """The qform; pixdim of 0 would silently count as 1 and turn axes round."""
    pixdim = np.asarray(header["pixdim"], np.float64)
    numbers = [header[f"quatern_{n}"] for n in "bcd"] + [header[f"qoffset_{n}"] for n in "xyz"]
    if not np.isfinite(pixdim[1:4]).all() or pixdim[1:4].min() <= 0:
        raise _bad(Reason.NO_SCALE, f"voxel sizes {pixdim[1:4].tolist()}", "positive mm")
    if not np.isfinite(np.asarray(numbers, np.float64)).all():
        raise _bad(Reason.BAD_GEOMETRY, "a qform that is not finite", "finite numbers")
    try:
        return np.asarray(header.get_qform(), np.float64)
    except (ValueError, HeaderDataError) as error:
        raise _bad(
            Reason.BAD_GEOMETRY, "a qform that is no rotation", "a unit quaternion"
        ) from error


def _compare_forms(
    sform: npt.NDArray[np.float64],
    qform: npt.NDArray[np.float64],
    shape: tuple[int, int, int],
    defects: list[Defect],
) -> None:
    if nibabel.aff2axcodes(sform) != nibabel.aff2axcodes(qform):
        raise _bad(
            Reason.ORIENTATION_CONFLICT,
            f"sform says {''.join(map(str, nibabel.aff2axcodes(sform)))}, qform "
            f"{''.join(map(str, nibabel.aff2axcodes(qform)))}",
            "one orientation",
        )
    ends = np.array([(i, j, k, 1) for i in (0, 1) for j in (0, 1) for k in (0, 1)], np.float64)
    ends[:, :3] *= np.asarray(shape) - 1
    apart = np.linalg.norm((ends @ (sform - qform).T)[:, :3], axis=1).max()
    least = float(np.linalg.norm(sform[:3, :3], axis=0).min())
    if apart > _FORMS_APART_VOXELS * least:
        words = f"sform and qform differ by up to {apart:.1f} mm; the sform is used"
        defects.append(Defect(Reason.ORIENTATION_CONFLICT, words))


# ---- the voxels ----------------------------------------------------------------------------


class _Inflated:
    """Bytes of a gzip file, as many as were asked for and no more."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = gzip.GzipFile(fileobj=file)

    def take(self, count: int) -> bytes:
        try:
            return self._file.read(count)
        except EOFError as error:
            raise _bad(Reason.TRUNCATED, "compressed data that end early", "a whole file") from (
                error
            )
        except (OSError, zlib.error) as error:
            raise DecodeFailed(
                Reason.CODEC_ERROR,
                "compressed data that are damaged (wrong form or check sum)",
                expected="a whole .nii.gz file",
                remedy="copy the file again",
            ) from error


def decode_nifti(path: Path, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The decode worker's task "nifti": voxels (K,J,I), last index of the file first.

    options: `limits` (asdict of Limits), `kind`: "hu" for int16, or "labels" for uint8. info:
    `shape` (I,J,K), `affine` (index -> LPS mm), `defects`.
    """
    limits = options.get("limits", {})
    kind = str(options["kind"])
    item = 2 if kind == "hu" else 1
    size = path.stat().st_size
    if size > int(limits.get("file_bytes", 2 << 30)):
        raise _bad(Reason.TOO_LARGE, f"a file of {size} bytes", "an ordinary volume")
    if size == 0:
        raise _bad(Reason.EMPTY, "a file of 0 bytes", "a NIfTI volume")
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if path.name.lower().endswith(".gz") and not zipped:
            raise _bad(Reason.FORMAT_REFUSED, "a .gz file that is not gzip", "gzip")
        stream = _Inflated(file)
        take = stream.take if zipped else file.read
        raw = take(544)
        head = read_head(raw, int(limits.get("decoded_bytes", 2 << 30)) // item)
        if not zipped and size < head.offset + head.data_bytes:
            raise _bad(
                Reason.TRUNCATED,
                f"{size} bytes where {head.offset + head.data_bytes} are declared",
                "a whole file",
            )
        begun = raw[head.offset :] if head.offset < len(raw) else b""
        to_skip = max(0, head.offset - len(raw))
        if len(take(to_skip)) != to_skip:
            raise _bad(Reason.TRUNCATED, "a file that ends before its voxels", "a whole file")
        pixels, defects = _voxels(head, begun, take, kind)
        if zipped and take(1):
            raise _bad(
                Reason.INFLATE_LIMIT,
                "more compressed data than the header declares",
                "voxels and nothing behind them",
            )
    told = [*head.defects, *defects]
    return pixels, {
        "shape": list(head.shape),
        "affine": head.affine_lps_mm.tolist(),
        "defects": [[d.reason.value, d.words] for d in told],
    }


def _voxels(
    head: NiftiHead, begun: bytes, take: Any, kind: str
) -> tuple[npt.NDArray[Any], list[Defect]]:
    """Slab by slab: values out of the stream, scaled, checked and narrowed."""
    i, j, k = head.shape
    plane = i * j * head.dtype.itemsize
    depth = max(1, _SLAB_BYTES // plane)
    out = np.empty((k, j, i), np.int16 if kind == "hu" else np.uint8)
    noted: set[Defect] = set()
    # Only bytes of the voxels may have come with the header.
    begun = begun[: head.data_bytes]
    for first in range(0, k, depth):
        count = min(depth, k - first) * plane
        data = begun[:count]
        begun = begun[count:]
        data += take(count - len(data))
        if len(data) != count:
            raise _bad(Reason.TRUNCATED, "voxels that end early", "all that are declared")
        stored = np.frombuffer(data, head.dtype).reshape(-1, j, i)
        make = _hounsfield if kind == "hu" else _label_values
        out[first : first + depth] = make(stored, head.scale, noted)
    return out, sorted(noted, key=lambda d: d.words)


def _hounsfield(
    stored: npt.NDArray[Any], scale: tuple[float, float], noted: set[Defect]
) -> npt.NDArray[np.int16]:
    slope, intercept = scale
    if stored.dtype.kind in "iu" and slope == 1 and intercept == int(intercept):
        whole = stored.astype(np.int64) + int(intercept)
    else:
        exact = stored.astype(np.float64) * slope + intercept
        if not np.isfinite(exact).all():
            raise InputRefused(
                Reason.NON_FINITE,
                f"{int(np.count_nonzero(~np.isfinite(exact)))} voxels that are NaN or infinite",
                expected="Hounsfield units",
                remedy="write air (-1024) where nothing was scanned",
            )
        whole = np.rint(exact)
        if np.abs(whole - exact).max() > 1e-3:
            noted.add(Defect(Reason.CONVERTED, "fractions of a HU, rounded"))
    if whole.max(initial=0) > 32767:
        raise InputRefused(
            Reason.NOT_HU,
            f"values up to {float(whole.max()):.0f}",
            expected="Hounsfield units of at most 32767",
            remedy="write the volume in HU",
        )
    return np.maximum(whole, _LEAST_HU).astype(np.int16)


def _label_values(
    stored: npt.NDArray[Any], scale: tuple[float, float], noted: set[Defect]
) -> npt.NDArray[np.uint8]:
    slope, intercept = scale
    values = stored if (slope, intercept) == (1.0, 0.0) else stored * slope + intercept
    if values.dtype.kind == "f":
        whole = np.rint(values)
        if not np.isfinite(values).all() or np.abs(whole - values).max() > 1e-6:
            raise _no_labels("fractions, NaN or infinite values")
        values = whole
        noted.add(Defect(Reason.CONVERTED, "labels written as floating-point numbers"))
    if values.min(initial=0) < 0 or values.max(initial=0) > 255:
        raise _no_labels(f"values {float(values.min()):.0f} to {float(values.max()):.0f}")
    return values.astype(np.uint8)


def _no_labels(found: str) -> InputRefused:
    return InputRefused(
        Reason.BAD_ANNOTATION,
        f"a label volume with {found}",
        expected="whole numbers: 0 neither, 1 kidney, 2 tumour, 3 cyst",
        remedy="threshold probabilities and write labels",
    )


def as_source(array: npt.NDArray[Any], volume: Volume) -> npt.NDArray[Any]:
    """An array (Z,Y,X) on the volume's grid as the volume's own file lies: (I,J,K) for NIfTI."""
    return from_canonical(array, volume.source_axes)
