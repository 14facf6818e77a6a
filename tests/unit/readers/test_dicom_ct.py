"""Ten ways a CT series lies in its files end at the right place on the original grid, or in words."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy import ndimage

from renalkit.domain.image import pixel_sha256
from renalkit.domain.volume import Phase, PhaseSource, Volume, from_canonical
from renalkit.errors import Reason
from renalkit.phantom.ct.geometry import Geometry, source_grid
from renalkit.readers.contract import Limits, Outcome, ReadOptions
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.dicom_ct import ReadSeries, read_ct_series, read_dicom_ct
from renalkit.readers.dicom_ct_slice import phase_of_words
from renalkit.readers.pseudonyms import Pseudonyms
from renalkit.transforms.volumes import resampled, working_grid

sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
corpus = importlib.import_module("make_ct")
CENTRE, GRID, SECOND = corpus.CENTRE, corpus.GRID, corpus.SECOND
ball, scene, write = corpus.ball, corpus.scene, corpus.write

OPTIONS = ReadOptions()
NOTED = {
    Geometry.PLAIN: set(),
    Geometry.NEGATED_AXIS: set(),
    Geometry.BOTH_FLIPPED: set(),
    Geometry.REVERSED: set(),
    Geometry.SHEARED: {Reason.GANTRY_TILT},
    Geometry.UNEVEN: {Reason.UNEVEN_SLICES},
    Geometry.MISSING_SLICE: {Reason.SLICE_GAP},
    Geometry.DUPLICATE_SLICE: set(),
    Geometry.TWO_PHASES: {Reason.SEVERAL_ACQUISITIONS},
    Geometry.OBLIQUE: {Reason.OBLIQUE},
}


@pytest.fixture(scope="module")
def worker() -> Iterator[DecodeWorker]:
    with DecodeWorker(Limits()) as found:
        yield found


def read(folder: Path, worker: DecodeWorker) -> ReadSeries:
    return read_ct_series(sorted(folder.rglob("*.dcm")), OPTIONS, worker)


def reasons(found: ReadSeries) -> set[Reason]:
    return {d.reason for r in found.reports for d in r.reasons}


def changed(folder: Path, change: Callable[[int, pydicom.Dataset], None]) -> None:
    """Rewrite every slice after `change(index, data)`."""
    for index, path in enumerate(sorted(folder.glob("*.dcm"))):
        data = pydicom.dcmread(path)
        change(index, data)
        data.save_as(path)


@pytest.mark.parametrize("geometry", Geometry)
def test_a_mass_ends_where_it_was_in_the_files(
    tmp_path: Path, worker: DecodeWorker, geometry: Geometry
) -> None:
    """Found on an upright working grid, carried back to the files' own slices, rows and columns."""
    found = read(write(tmp_path / "ct", geometry), worker)
    assert len(found.series) == (2 if geometry is Geometry.TWO_PHASES else 1)
    files = source_grid(geometry, GRID)
    for series in found.series:
        volume = series.volume
        assert volume.grid.axes == "SPL"
        assert {d.reason for d in series.defects} == NOTED[geometry]
        work = working_grid(volume.grid, (3.0, 1.9, 2.0))
        image = np.stack(list(resampled(volume.pixels, volume.grid, work, fill=-1000)))
        bright, dark = image > 120, np.abs(image + 100) < 50
        dark &= ndimage.binary_dilation(ball(work, SECOND, 6.0), iterations=2)
        for mask, centre in ((bright, CENTRE), (dark, SECOND)):
            back = np.stack(list(resampled(mask, work, volume.grid))) >= 0.5
            # In the order of the files: slice k of the array is the file named paths[k].
            own = from_canonical(back, "S" + volume.source_axes[1:])
            numbers = [int(p.stem) for p in series.paths]
            at = ndimage.center_of_mass(own)
            slice_number = np.interp(at[0], np.arange(len(numbers)), numbers)
            wanted = files.to_index([centre])[0]
            if geometry is Geometry.TWO_PHASES:
                slice_number = (slice_number - 1) % GRID.shape[0] + 1
            elif geometry is Geometry.DUPLICATE_SLICE and slice_number > GRID.shape[0] // 2 + 1:
                slice_number -= 1
            assert abs(slice_number - 1 - wanted[0]) < 0.5
            assert np.abs(np.subtract(at[1:], wanted[1:])).max() < 0.5


@pytest.mark.parametrize(
    "geometry",
    [Geometry.PLAIN, Geometry.NEGATED_AXIS, Geometry.BOTH_FLIPPED, Geometry.REVERSED]
    + [Geometry.DUPLICATE_SLICE, Geometry.MISSING_SLICE],
)
def test_whole_voxels_are_those_of_the_scan(
    tmp_path: Path, worker: DecodeWorker, geometry: Geometry
) -> None:
    found = read(write(tmp_path / "ct", geometry), worker)
    volume = found.series[0].volume
    slices = [k for k in range(24) if geometry is not Geometry.MISSING_SLICE or k != 8]
    pixels = np.stack([volume.pixels[k] for k in range(volume.n_frames)])
    assert np.array_equal(pixels, scene()[slices])
    assert volume.sha256 == pixel_sha256(volume.pixels)
    assert volume.grid.to_lps([(0, 0, 0)]) == pytest.approx(GRID.to_lps([(0, 0, 0)]))
    assert volume.spacing_mm == pytest.approx((1.9, 2.0))
    gone = [r for r in found.reports if r.outcome is Outcome.SKIPPED]
    assert [d.reason for r in gone for d in r.reasons] == (
        [Reason.DUPLICATE_SLICE] if geometry is Geometry.DUPLICATE_SLICE else []
    )


def test_a_study_of_two_phases_and_a_localizer(tmp_path: Path, worker: DecodeWorker) -> None:
    write(tmp_path / "a" / "nephrographic", description="nephrographic phase")
    write(tmp_path / "a" / "scout")

    def make_scout(index: int, data: pydicom.Dataset) -> None:
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        data.SeriesInstanceUID += ".9"
        data.SOPInstanceUID += ".9"
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID

    changed(tmp_path / "a" / "scout", make_scout)
    files = sorted(tmp_path.rglob("*.dcm"))
    pseudonyms = Pseudonyms(b"k" * 32)
    results = list(read_dicom_ct(files, tmp_path, pseudonyms, OPTIONS, worker))
    assert sum(len(r.files) for r in results) == len(files) == 48
    (study,) = [r.study for r in results if r.study is not None]
    (volume,) = study.clips
    assert isinstance(volume, Volume)
    assert (volume.phase, volume.phase_source) == (Phase.NEPHROGRAPHIC, PhaseSource.HEADER)
    assert study.covariates == {"age_years": 61, "sex": "F"}
    assert study.scanner.model == "Phantom CT"
    skipped = [r.files[0] for r in results if r.study is None]
    assert {r.reasons[0].reason for r in skipped} == {Reason.LOCALIZER}
    assert volume.source.keyed_path == pseudonyms.path(Path("a/nephrographic/0001.dcm"))


@pytest.mark.parametrize(
    ("words", "phase"),
    [
        ("Abdomen native 3.0 B30f", Phase.NON_CONTRAST),
        ("NON-CONTRAST", Phase.NON_CONTRAST),
        ("Kidneys corticomedullary", Phase.CORTICOMEDULLARY),
        ("Portal Venous 5mm", Phase.NEPHROGRAPHIC),
        ("10 min delayed", Phase.EXCRETORY),
        ("arterial + venous", None),
        ("Abdomen 3.0", None),
    ],
)
def test_phases_are_read_from_words_or_not_at_all(words: str, phase: Phase | None) -> None:
    assert phase_of_words(words) is phase


def turned_round(index: int, data: pydicom.Dataset) -> None:
    data.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


def bent(index: int, data: pydicom.Dataset) -> None:
    x, y, z = data.ImagePositionPatient
    data.ImagePositionPatient = [x + (5 if index == 9 else 0), y, z]


def wide_gap(index: int, data: pydicom.Dataset) -> None:
    x, y, z = data.ImagePositionPatient
    data.ImagePositionPatient = [x, y, z + (12 if index > 11 else 0)]


def in_centimetres(index: int, data: pydicom.Dataset) -> None:
    data.PixelSpacing = [v / 10 for v in data.PixelSpacing]


def without_slope(index: int, data: pydicom.Dataset) -> None:
    del data.RescaleSlope


def slope_of(text: str) -> Callable[[int, pydicom.Dataset], None]:
    def change(index: int, data: pydicom.Dataset) -> None:
        data.RescaleSlope = text

    return change


def optical_density(index: int, data: pydicom.Dataset) -> None:
    data.RescaleType = "OD"


def nowhere(index: int, data: pydicom.Dataset) -> None:
    del data.ImagePositionPatient


def crooked(index: int, data: pydicom.Dataset) -> None:
    data.ImageOrientationPatient = [1, 0, 0, 0.3, 0.9, 0]


def of_magnetic_resonance(index: int, data: pydicom.Dataset) -> None:
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    data.Modality = "MR"


def many_frames(index: int, data: pydicom.Dataset) -> None:
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"


def all_at_one_place(index: int, data: pydicom.Dataset) -> None:
    data.ImagePositionPatient = [0, 0, 3 * (index // 2)]


@pytest.mark.parametrize(
    ("change", "reason", "outcome"),
    [
        (turned_round, Reason.NOT_AXIAL, Outcome.SKIPPED),
        (bent, Reason.BAD_GEOMETRY, Outcome.REFUSED),
        (wide_gap, Reason.SLICE_GAP, Outcome.REFUSED),
        (in_centimetres, Reason.NO_SCALE, Outcome.REFUSED),
        (without_slope, Reason.BAD_RESCALE, Outcome.REFUSED),
        (slope_of("0"), Reason.BAD_RESCALE, Outcome.REFUSED),
        (slope_of("1e-300"), Reason.BAD_RESCALE, Outcome.REFUSED),
        (optical_density, Reason.NOT_HU, Outcome.REFUSED),
        (nowhere, Reason.BAD_GEOMETRY, Outcome.REFUSED),
        (crooked, Reason.BAD_GEOMETRY, Outcome.REFUSED),
        (of_magnetic_resonance, Reason.NOT_CT, Outcome.REFUSED),
        (many_frames, Reason.BAD_FRAMES, Outcome.REFUSED),
        (all_at_one_place, Reason.DUPLICATE_SLICE, Outcome.REFUSED),
    ],
)
def test_d62_series_that_cannot_be_used_are_refused_in_words(
    tmp_path: Path,
    worker: DecodeWorker,
    change: Callable[[int, pydicom.Dataset], None],
    reason: Reason,
    outcome: Outcome,
) -> None:
    folder = write(tmp_path / "ct")
    changed(folder, change)
    found = read(folder, worker)
    assert found.series == ()
    assert len(found.reports) == 24
    told = {(r.outcome, d.reason) for r in found.reports for d in r.reasons}
    assert told - {(Outcome.SKIPPED, Reason.DUPLICATE_SLICE)} == {(outcome, reason)}


def test_d62_mixed_orientations_are_taken_apart(tmp_path: Path, worker: DecodeWorker) -> None:
    folder = write(tmp_path / "ct")
    changed(folder, lambda i, data: turned_round(i, data) if i > 19 else None)
    found = read(folder, worker)
    assert [s.volume.n_frames for s in found.series] == [20]
    assert Reason.NOT_AXIAL in reasons(found)


def test_too_few_slices_are_no_volume(tmp_path: Path, worker: DecodeWorker) -> None:
    folder = write(tmp_path / "ct")
    for path in sorted(folder.glob("*.dcm"))[2:]:
        path.unlink()
    found = read(folder, worker)
    assert found.series == ()
    assert reasons(found) == {Reason.TOO_FEW_SLICES}


def test_each_slice_has_its_own_slope_and_no_value_below_air(
    tmp_path: Path, worker: DecodeWorker
) -> None:
    folder = write(tmp_path / "ct")

    def own(index: int, data: pydicom.Dataset) -> None:
        if index == 5:
            data.RescaleSlope, data.RescaleIntercept = "0.5", "-512"
        if index == 6:
            data.RescaleIntercept = "-3000"

    changed(folder, own)
    volume = read(folder, worker).series[0].volume
    assert np.array_equal(volume.pixels[5], np.rint(scene()[5] / 2).astype(np.int16))
    assert volume.pixels[6].min() == -1024
    assert np.array_equal(volume.pixels[7], scene()[7])


def test_a_damaged_slice_is_a_missing_slice(tmp_path: Path, worker: DecodeWorker) -> None:
    folder = write(tmp_path / "ct")

    def damage(index: int, data: pydicom.Dataset) -> None:
        data.compress(pydicom.uid.RLELossless)
        if index == 10:
            frames = bytearray(data.PixelData)
            frames[24:28] = b"\xff\xff\xff\xff"
            data.PixelData = bytes(frames)

    changed(folder, damage)
    found = read(folder, worker)
    (series,) = found.series
    assert series.volume.n_frames == 23
    assert {d.reason for d in series.defects} == {Reason.CODEC_ERROR, Reason.SLICE_GAP}
    (refused,) = [r for r in found.reports if r.outcome is Outcome.REFUSED]
    assert refused.path.name == "0011.dcm"
    assert np.array_equal(series.volume.pixels[10], scene()[11])


def test_a_file_that_changes_is_noticed(tmp_path: Path, worker: DecodeWorker) -> None:
    folder = write(tmp_path / "ct")
    volume = read(folder, worker).series[0].volume
    path = folder / "0003.dcm"
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    with pytest.raises(Exception, match="changed since it was first read"):
        volume.pixels[2]
