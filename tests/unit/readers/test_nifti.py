"""NIfTI volumes of any orientation end where nibabel says they are; damaged ones in words."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest

from renalkit.domain.volume import VolumeGrid, canonical_grid, to_canonical
from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import Limits, ReadOptions
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.nifti import (
    NiftiVolume,
    as_source,
    is_nifti,
    label_defects,
    labels_on,
    read_nifti_ct,
    read_nifti_labels,
    volume_of,
)

OPTIONS = ReadOptions()
SHAPE = (6, 40, 42)
SPACING = {"L": 2.0, "P": 2.1, "S": 3.0}
REAL = Path(os.environ.get("RENALKIT_DATA", Path(__file__).parents[3] / ".." / "shared" / "data"))


@pytest.fixture(scope="module")
def worker() -> Iterator[DecodeWorker]:
    with DecodeWorker(Limits(worker_seconds=20)) as found:
        yield found


def ras_affine(axes: str, shape: tuple[int, ...] = ()) -> np.ndarray:
    """nibabel's affine of an array whose axes rise towards these sides."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, (row, sign) in enumerate(nibabel.orientations.axcodes2ornt(tuple(axes))):
        length = (SPACING["L"], SPACING["P"], SPACING["S"])[int(row)]
        affine[int(row), column] = sign * length
    affine[:3, 3] = (-17.0, 23.0, 5.0)
    return affine


def picture(shape: tuple[int, ...] = (42, 40, 6)) -> np.ndarray:
    return np.random.default_rng(1).integers(-1000, 1500, shape).astype(np.int16)


def save(
    path: Path,
    array: np.ndarray | None = None,
    affine: np.ndarray | None = None,
    *,
    kind: type = nibabel.Nifti1Image,
    **header: object,
) -> Path:
    """A file by nibabel; header: fields overwritten in its bytes afterwards (offset, form)."""
    image = kind(
        picture() if array is None else array, ras_affine("LPS") if affine is None else affine
    )
    nibabel.save(image, path)
    return path


def patched(path: Path, *patches: tuple[int, str, object]) -> Path:
    """Overwrite header fields at byte offsets."""
    zipped = path.suffix == ".gz"
    data = bytearray(gzip.decompress(path.read_bytes()) if zipped else path.read_bytes())
    for offset, form, value in patches:
        values = value if isinstance(value, tuple) else (value,)
        struct.pack_into("<" + form, data, offset, *values)
    path.write_bytes(gzip.compress(bytes(data), 1, mtime=0) if zipped else bytes(data))
    return path


def refused(path: Path, worker: DecodeWorker, *, labels: bool = False) -> InputRefused:
    with pytest.raises(InputRefused) as caught:
        (read_nifti_labels if labels else read_nifti_ct)(path, OPTIONS, worker)
    assert worker.deaths == 0
    assert caught.value.expected
    assert caught.value.remedy
    return caught.value


# ---- right results -------------------------------------------------------------------------


@pytest.mark.parametrize("axes", ["LPS", "RAS", "LAS", "IPL", "SPL", "PIR", "ASL"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_any_orientation_ends_at_its_place(
    tmp_path: Path, worker: DecodeWorker, axes: str, suffix: str
) -> None:
    lengths = {"L": 42, "R": 42, "P": 40, "A": 40, "S": 6, "I": 6}
    array = picture(tuple(lengths[a] for a in axes))
    path = save(tmp_path / f"ct{suffix}", array, ras_affine(axes))
    found = read_nifti_ct(path, OPTIONS, worker)
    assert found.source_axes == axes
    assert found.grid.axes == "SPL"
    assert found.pixels.shape == SHAPE
    assert found.grid.spacing_mm == pytest.approx((3.0, 2.1, 2.0))
    image = nibabel.load(path)
    for index in ((0, 0, 0), tuple(n - 1 for n in array.shape), (1, 2, 3)):
        ras = image.affine @ (*index, 1)
        k, j, i = np.rint(found.grid.to_index([(-ras[0], -ras[1], ras[2])])[0]).astype(int)
        assert found.pixels[k, j, i] == array[index]
    volume = volume_of(found, path, "f-0")
    assert np.array_equal(as_source(found.pixels, volume), array)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "<i4", "<f4", "<f8", "<u2"])
def test_every_type_gives_the_same_hu(tmp_path: Path, worker: DecodeWorker, dtype: str) -> None:
    array = np.abs(picture()) % 200
    path = tmp_path / "ct.nii.gz"
    header = nibabel.Nifti1Header(endianness=dtype[0] if dtype[0] in "<>" else "<")
    image = nibabel.Nifti1Image(array.astype(dtype), ras_affine("LPS"), header)
    image.set_data_dtype(dtype)
    nibabel.save(image, path)
    found = read_nifti_ct(path, OPTIONS, worker)
    assert np.array_equal(found.pixels, to_canonical(array, "LPS"))


def test_stored_values_are_scaled_and_air_is_the_least(
    tmp_path: Path, worker: DecodeWorker
) -> None:
    array = np.full((42, 40, 6), 100, np.int16)
    array[0, 0, 0] = -30000
    path = patched(save(tmp_path / "a.nii", array), (112, "ff", (0.5, -24.0)))
    found = read_nifti_ct(path, OPTIONS, worker)
    assert (found.pixels.max(), found.pixels.min()) == (26, -1024)
    for scale in ((0.0, 7.0), (float("nan"), float("nan"))):
        plain = read_nifti_ct(patched(path, (112, "ff", scale)), OPTIONS, worker)
        assert plain.pixels.max() == 100
    halves = save(tmp_path / "b.nii", array.astype(np.float32) + np.float32(0.4))
    found = read_nifti_ct(halves, OPTIONS, worker)
    assert found.pixels.max() == 100
    assert [d.reason for d in found.defects] == [Reason.CONVERTED]


def test_units_and_a_trailing_dimension(tmp_path: Path, worker: DecodeWorker) -> None:
    affine = ras_affine("LPS") / 1000
    affine[3, 3] = 1
    image = nibabel.Nifti1Image(picture()[..., None], affine)
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "m.nii")
    found = read_nifti_ct(tmp_path / "m.nii", OPTIONS, worker)
    assert found.grid.spacing_mm == pytest.approx((3.0, 2.1, 2.0), rel=1e-5)
    second = save(tmp_path / "2.nii.gz", kind=nibabel.Nifti2Image)
    assert np.array_equal(read_nifti_ct(second, OPTIONS, worker).pixels, found.pixels)


# ---- the rows of the corpus ----------------------------------------------------------------


def test_n01_a_size_beyond_the_file_is_not_allocated(tmp_path: Path, worker: DecodeWorker) -> None:
    path = patched(save(tmp_path / "a.nii"), (40, "8h", (4, *(32767,) * 4, 1, 1, 1)))
    assert refused(path, worker).reason is Reason.TOO_LARGE
    path = patched(save(tmp_path / "b.nii"), (40, "8h", (3, 400, 400, 400, 1, 1, 1, 1)))
    assert refused(path, worker).reason is Reason.TRUNCATED


@pytest.mark.parametrize(
    "dim",
    [(3, -4, 4, 4, 1, 1, 1, 1), (3, 0, 4, 4, 1, 1, 1, 1), (99, 4, 4, 4, 1, 1, 1, 1)]
    + [(0, 4, 4, 4, 1, 1, 1, 1), (-1, 4, 4, 4, 1, 1, 1, 1)],
)
def test_n02_dimensions_that_cannot_be(
    tmp_path: Path, worker: DecodeWorker, dim: tuple[int, ...]
) -> None:
    path = patched(save(tmp_path / "a.nii"), (40, "8h", dim))
    assert refused(path, worker).reason is Reason.BAD_PIXEL_DESCRIPTION


def test_n02_several_volumes_in_one_file(tmp_path: Path, worker: DecodeWorker) -> None:
    path = save(tmp_path / "a.nii", picture((8, 8, 4, 3)))
    assert refused(path, worker).reason is Reason.LAYOUT_UNKNOWN


@pytest.mark.parametrize("code", [12345, 32, 128, 1536, 0])
def test_n03_types_that_are_no_ct(tmp_path: Path, worker: DecodeWorker, code: int) -> None:
    path = patched(save(tmp_path / "a.nii"), (70, "h", code))
    assert refused(path, worker).reason is Reason.BAD_PIXEL_DESCRIPTION


@pytest.mark.parametrize("offset", [-1000.0, 1e30, float("nan"), 10.0, 352.5])
def test_n04_voxels_that_begin_nowhere(tmp_path: Path, worker: DecodeWorker, offset: float) -> None:
    path = patched(save(tmp_path / "a.nii"), (108, "f", offset))
    assert refused(path, worker).reason is Reason.BAD_PIXEL_DESCRIPTION


@pytest.mark.parametrize("size", [-16, 2_000_000_000, 0])
def test_n05_an_impossible_extension_is_ignored(
    tmp_path: Path, worker: DecodeWorker, size: int
) -> None:
    image = nibabel.Nifti1Image(picture(), ras_affine("LPS"))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * 40))
    nibabel.save(image, tmp_path / "a.nii")
    assert read_nifti_ct(tmp_path / "a.nii", OPTIONS, worker).defects == ()
    found = read_nifti_ct(patched(tmp_path / "a.nii", (352, "i", size)), OPTIONS, worker)
    assert [d.reason for d in found.defects] == [Reason.BAD_ELEMENT]
    assert np.array_equal(found.pixels, to_canonical(picture(), "LPS"))


QFORM_ONLY = ((252, "hh", (1, 0)),)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_n06_no_voxel_size(tmp_path: Path, worker: DecodeWorker, size: float) -> None:
    path = patched(save(tmp_path / "a.nii"), *QFORM_ONLY, (80, "f", size))
    assert refused(path, worker).reason is Reason.NO_SCALE


def test_n06_a_size_in_centimetres(tmp_path: Path, worker: DecodeWorker) -> None:
    path = save(tmp_path / "a.nii", affine=np.diag([-0.2, -0.2, 0.3, 1.0]))
    assert refused(path, worker).reason is Reason.NO_SCALE


@pytest.mark.parametrize("row", [(0.0,) * 4, (float("nan"), 0, 0, 0), (0.0, 2.1, 0.0, 0.0)])
def test_n07_an_affine_without_volume(
    tmp_path: Path, worker: DecodeWorker, row: tuple[float, ...]
) -> None:
    path = patched(save(tmp_path / "a.nii"), (280, "4f", row), (252, "h", 0))
    assert refused(path, worker).reason is Reason.BAD_GEOMETRY


def test_n07_no_orientation_at_all(tmp_path: Path, worker: DecodeWorker) -> None:
    path = patched(save(tmp_path / "a.nii"), (252, "hh", (0, 0)))
    assert "left" in refused(path, worker).found


def test_n08_sform_before_qform(tmp_path: Path, worker: DecodeWorker) -> None:
    """A left-handed and an oblique one; forms that differ; forms that disagree about left."""
    image = nibabel.Nifti1Image(picture(), ras_affine("LPS"))
    image.set_qform(ras_affine("LPS"), 1)
    image.set_sform(ras_affine("LPS"), 2)
    nibabel.save(image, tmp_path / "same.nii")
    assert read_nifti_ct(tmp_path / "same.nii", OPTIONS, worker).defects == ()
    moved = ras_affine("LPS")
    moved[:3, 3] += 4
    image.set_qform(moved, 1)
    nibabel.save(image, tmp_path / "moved.nii")
    found = read_nifti_ct(tmp_path / "moved.nii", OPTIONS, worker)
    assert [d.reason for d in found.defects] == [Reason.ORIENTATION_CONFLICT]
    assert found.grid.to_lps([(0, 0, 0)])[0] == pytest.approx((17 - 0, -23 - 0, 5.0))
    image.set_qform(ras_affine("RPS"), 1)
    nibabel.save(image, tmp_path / "other.nii")
    assert refused(tmp_path / "other.nii", worker).reason is Reason.ORIENTATION_CONFLICT
    qform = patched(tmp_path / "moved.nii", (254, "h", 0))
    assert read_nifti_ct(qform, OPTIONS, worker).grid.first_mm[2] == pytest.approx(9.0)


def test_n08_an_oblique_volume(tmp_path: Path, worker: DecodeWorker) -> None:
    angle = np.radians(20)
    turn = np.eye(4)
    turn[1:3, 1:3] = ((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle)))
    path = save(tmp_path / "a.nii", affine=turn @ ras_affine("LPS"))
    found = read_nifti_ct(path, OPTIONS, worker)
    assert found.grid.turn_deg == pytest.approx(20, abs=1e-3)
    place = turn @ ras_affine("LPS") @ (3, 4, 5, 1)
    at = found.grid.to_index([(-place[0], -place[1], place[2])])[0]
    assert at == pytest.approx((5, 4, 3), abs=1e-4)


@pytest.mark.parametrize("scale", [(float("nan"), 0.0), (float("inf"), 0.0), (1.0, float("inf"))])
def test_n09_a_scale_that_is_not_finite(
    tmp_path: Path, worker: DecodeWorker, scale: tuple[float, float]
) -> None:
    path = patched(save(tmp_path / "a.nii"), (112, "ff", scale))
    assert refused(path, worker).reason is Reason.BAD_RESCALE


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_n09_values_that_are_not_finite(tmp_path: Path, worker: DecodeWorker, value: float) -> None:
    array = picture().astype(np.float32)
    array[3, 3, 3] = value
    assert refused(save(tmp_path / "a.nii", array), worker).reason is Reason.NON_FINITE


def test_n09_values_beyond_hu(tmp_path: Path, worker: DecodeWorker) -> None:
    path = save(tmp_path / "a.nii", picture().astype(np.int32) * 100)
    assert refused(path, worker).reason is Reason.NOT_HU


@pytest.mark.parametrize("keep", [0, 3, 200, 348, 360, 5000])
def test_n10_a_cut_file(tmp_path: Path, worker: DecodeWorker, keep: int) -> None:
    path = save(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes()[:keep])
    assert refused(path, worker).reason in (Reason.TRUNCATED, Reason.EMPTY)


def test_n11_a_wrong_check_sum(tmp_path: Path, worker: DecodeWorker) -> None:
    path = save(tmp_path / "a.nii.gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    assert refused(path, worker).reason is Reason.CODEC_ERROR


def test_n12_a_bomb_is_not_inflated(tmp_path: Path, worker: DecodeWorker) -> None:
    path = save(tmp_path / "a.nii.gz")
    with gzip.open(path, "ab", compresslevel=1) as file:
        for _ in range(8):
            file.write(bytes(8 << 20))
    assert refused(path, worker).reason is Reason.INFLATE_LIMIT


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no gzip at all" * 50, Reason.FORMAT_REFUSED),
        (b"", Reason.EMPTY),
        (gzip.compress(b"", mtime=0), Reason.TRUNCATED),
        (gzip.compress(b"x" * 1000, mtime=0), Reason.NOT_AN_IMAGE),
    ],
)
def test_n13_no_gzip(tmp_path: Path, worker: DecodeWorker, content: bytes, reason: Reason) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    assert refused(path, worker).reason is reason


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_n13_a_cut_gzip(tmp_path: Path, worker: DecodeWorker, keep: float) -> None:
    path = save(tmp_path / "a.nii.gz")
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    assert refused(path, worker).reason is Reason.TRUNCATED


def drawn(
    tmp_path: Path, array: np.ndarray, worker: DecodeWorker, move: float = 0.0
) -> NiftiVolume:
    affine = ras_affine("LPS")
    affine[0, 3] += move * SPACING["L"]
    return read_nifti_labels(save(tmp_path / "seg.nii.gz", array, affine), OPTIONS, worker)


def grid() -> VolumeGrid:
    lps = np.diag([-1.0, -1, 1, 1]) @ ras_affine("LPS")
    return canonical_grid((42, 40, 6), lps)[0]


@pytest.mark.parametrize(("move", "fits"), [(0.0, True), (1e-3, True), (0.3, False), (1.0, False)])
def test_n14_labels_beside_the_volume(
    tmp_path: Path, worker: DecodeWorker, move: float, fits: bool
) -> None:
    labels = drawn(tmp_path, np.ones((42, 40, 6), np.uint8), worker, move)
    if fits:
        assert labels_on(grid(), labels).pixels.shape == SHAPE
        return
    with pytest.raises(InputRefused, match="beside the volume") as caught:
        labels_on(grid(), labels)
    assert caught.value.reason is Reason.MASK_MISMATCH


def test_n14_labels_of_another_shape_or_value(tmp_path: Path, worker: DecodeWorker) -> None:
    with pytest.raises(InputRefused, match="on a volume of"):
        labels_on(grid(), drawn(tmp_path, np.ones((42, 40, 5), np.uint8), worker))
    with pytest.raises(InputRefused, match="label values 7") as caught:
        labels_on(grid(), drawn(tmp_path, np.full((42, 40, 6), 7, np.uint8), worker))
    assert caught.value.reason is Reason.UNKNOWN_LABEL


def test_n14_labels_as_floats(tmp_path: Path, worker: DecodeWorker) -> None:
    whole = drawn(tmp_path, np.full((42, 40, 6), 2, np.float32), worker)
    assert (whole.pixels == 2).all()
    assert [d.reason for d in whole.defects] == [Reason.CONVERTED]
    for value in (0.5, np.nan, -1.0, 300.0):
        path = save(tmp_path / "half.nii.gz", np.full((42, 40, 6), value, np.float32))
        assert refused(path, worker, labels=True).reason is Reason.BAD_ANNOTATION


def test_n14_labels_that_mark_nothing_or_no_kidney(tmp_path: Path, worker: DecodeWorker) -> None:
    array = np.full((42, 40, 6), -100, np.int16)
    path = save(tmp_path / "ct.nii", array)
    volume = volume_of(read_nifti_ct(path, OPTIONS, worker), path, "f-0")
    for value, reason in ((0, Reason.EMPTY_MASK), (1, Reason.MASK_MISMATCH)):
        labels = drawn(tmp_path, np.full((42, 40, 6), value, np.uint8), worker)
        found = label_defects(labels_on(volume.grid, labels), volume)
        assert [d.reason for d in found] == [reason]


def test_names() -> None:
    assert is_nifti(Path("A.NII.GZ"))
    assert is_nifti(Path("a.nii"))
    assert not is_nifti(Path("a.gz"))


# ---- real files ----------------------------------------------------------------------------


@pytest.mark.data
def test_a_real_volume_and_its_labels(worker: DecodeWorker) -> None:
    folder = REAL / "ct_volume_example"
    if not folder.is_dir():
        pytest.skip(f"no real data at {REAL}: set RENALKIT_DATA")
    found = read_nifti_ct(folder / "ct.nii.gz", OPTIONS, worker)
    assert (found.grid.shape, found.source_axes) == ((112, 101, 122), "RAS")
    assert found.grid.spacing_mm == pytest.approx((3, 3, 3), abs=1e-4)
    labels = read_nifti_labels(folder / "kidney_model_seg.nii.gz", OPTIONS, worker)
    volume = volume_of(found, folder / "ct.nii.gz", "f-0")
    assert label_defects(labels_on(volume.grid, labels), volume) == []


@pytest.mark.data
def test_real_labels_run_from_the_feet_to_the_head(worker: DecodeWorker) -> None:
    """KiTS23 lies as IPL; the right kidney is on the right of the left one."""
    folder = REAL / "kits23_labels" / "volumes"
    if not folder.is_dir():
        pytest.skip(f"no real data at {REAL}: set RENALKIT_DATA")
    paths = sorted(folder.glob("*.nii.gz"))[:6]
    assert len(paths) == 6
    for path in paths:
        found = read_nifti_labels(path, OPTIONS, worker)
        image = nibabel.load(path)
        assert found.source_axes == "IPL"
        counts = np.bincount(found.pixels.ravel(), minlength=4)
        assert np.array_equal(counts, np.bincount(np.asarray(image.dataobj).ravel(), minlength=4))
        middle = np.mean(np.argwhere(found.pixels > 0), axis=0)
        lps = found.grid.to_lps([middle])[0]
        voxels = np.mean(np.argwhere(np.asarray(image.dataobj) > 0), axis=0)
        ras = image.affine @ (*voxels, 1)
        assert lps == pytest.approx((-ras[0], -ras[1], ras[2]), abs=1e-6)
