"""Simulated DICOM: its own readers, other people's readers and the validator agree."""

import shutil
import subprocess

import numpy as np
import pydicom
import pytest

from renalkit.domain.geometry import Box, Region
from renalkit.readers.contract import Limits
from renalkit.readers.dicom_layout import read_layout, read_times
from renalkit.readers.dicom_pixels import decode_payload, describe, frame_places, read_payload
from renalkit.readers.dicom_prescan import FileSource, prescan
from renalkit.writers.dicom_phantom import (
    FrameTimes,
    PhantomIdentity,
    write_ct_series,
    write_us_clip,
)

IDENTITY = PhantomIdentity(
    key="cohort-7/p0001",
    patient_id="PHANTOM-0001",
    patient_name="PHANTOM^0001",
    sex="F",
    age_years=61,
    date="20240105",
    time="101500",
    institution="Site 1",
    manufacturer="Phantom Imaging",
    model="Alpha",
    description="Renal CEUS",
)
SHAPE = (120, 161)
REGIONS = (
    Region(Box(0, 10, 80, 100), (0.5, 0.5), "tissue"),
    Region(Box(81, 10, 80, 100), (0.5, 0.5), "tissue"),
)


def frames(n=5):
    rng = np.random.default_rng(3)
    return [rng.integers(0, 255, (*SHAPE, 3), dtype=np.uint8) for _ in range(n)]


def write(path, times=FrameTimes(100.0), quality=90, pictures=None, n=5):
    pictures = frames() if pictures is None else pictures
    write_us_clip(
        path,
        iter(pictures),
        n,
        IDENTITY,
        shape=SHAPE,
        regions=REGIONS,
        times=times,
        laterality="L",
        jpeg_quality=quality,
    )


def validated(path):
    """What the validator of dicom3tools finds wrong."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True)
    return [line for line in done.stderr.splitlines() if line.startswith(("Error", "Warning"))]


@pytest.mark.parametrize("quality", [90, None], ids=["jpeg", "uncompressed"])
@pytest.mark.parametrize(
    "times",
    [FrameTimes(100.0), FrameTimes(100.0, (0.0, 100.0, 110.5, 90.0, 100.0))],
    ids=["even", "vector"],
)
def test_clip_is_valid_and_read_back(tmp_path, quality, times):
    path = tmp_path / "clip.dcm"
    write(path, times, quality)
    scan = prescan(path, Limits())
    about = describe(scan, Limits())
    layout = read_layout(scan, *SHAPE)
    assert [region.box for region in layout.regions] == [region.box for region in REGIONS]
    assert layout.regions[0].spacing_mm == pytest.approx((0.5, 0.5))
    taken, defects = read_times(scan.values, 5)
    assert not defects
    steps = times.vector_ms or (0.0, 100.0, 100.0, 100.0, 100.0)
    assert np.allclose(np.diff(taken), np.asarray(steps[1:]) / 1000)
    theirs = pydicom.dcmread(path).pixel_array
    with FileSource(path) as source:
        places, irregular = frame_places(scan, about, source)
        ours = [decode_payload(read_payload(source, place), about) for place in places]
    assert not irregular
    assert np.array_equal(np.stack(ours), theirs)
    if quality is None:
        assert np.array_equal(theirs, np.stack(frames()))


@pytest.mark.parametrize("quality", [90, None], ids=["jpeg", "uncompressed"])
def test_clip_passes_the_validator(tmp_path, quality):
    write(tmp_path / "clip.dcm", FrameTimes(100.0, (0.0, 90.0, 110.0, 100.0, 100.0)), quality)
    assert validated(tmp_path / "clip.dcm") == []


def test_a_still_is_an_image_of_its_own_class(tmp_path):
    write(tmp_path / "still.dcm", None, pictures=frames(1), n=1)
    data = pydicom.dcmread(tmp_path / "still.dcm")
    assert data.SOPClassUID == "1.2.840.10008.5.1.4.1.1.6.1"
    assert "NumberOfFrames" not in data
    assert data.pixel_array.shape == (*SHAPE, 3)
    assert validated(tmp_path / "still.dcm") == []


def test_same_arguments_same_bytes(tmp_path):
    write(tmp_path / "a.dcm")
    write(tmp_path / "b.dcm")
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()


@pytest.mark.parametrize("n", [4, 6])
def test_a_wrong_number_of_frames_leaves_no_file(tmp_path, n):
    with pytest.raises(ValueError, match="announced"):
        write(tmp_path / "clip.dcm", n=n)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reverse", [False, True])
def test_ct_series(tmp_path, reverse):
    volume = np.random.default_rng(0).integers(-1024, 1500, (3, 40, 50)).astype(np.int16)
    write_ct_series(
        tmp_path / "ct",
        volume,
        IDENTITY,
        spacing_mm=(3.0, 0.8, 0.7),
        origin_mm=(-170.5, -150.0, -40.25),
        series=2,
        description="nephrographic",
        contrast="Iodine",
        reverse=reverse,
    )
    files = sorted((tmp_path / "ct").iterdir())
    assert [f.name for f in files] == ["0001.dcm", "0002.dcm", "0003.dcm"]
    slices = sorted(
        (pydicom.dcmread(f) for f in files), key=lambda d: float(d.ImagePositionPatient[2])
    )
    assert [int(d.InstanceNumber) for d in slices] == ([3, 2, 1] if reverse else [1, 2, 3])
    assert [float(d.ImagePositionPatient[2]) for d in slices] == [-40.25, -37.25, -34.25]
    assert slices[0].PixelSpacing == [0.8, 0.7]
    found = np.stack(
        [d.pixel_array.astype(int) * d.RescaleSlope + d.RescaleIntercept for d in slices]
    )
    assert np.array_equal(found, volume)


def write_small_ct(folder, **options):
    write_ct_series(
        folder,
        np.zeros((4, 33, 32), np.int16),
        IDENTITY,
        spacing_mm=(3.0, 0.8, 0.8),
        origin_mm=(0.0, 0.0, 0.0),
        series=2,
        description="non-contrast",
        contrast=None,
        **options,
    )


@pytest.mark.parametrize("tilt", [0.0, 12.0])
def test_ct_passes_the_validator(tmp_path, tilt):
    write_small_ct(tmp_path / "ct", tilt_deg=tilt)
    assert validated(tmp_path / "ct" / "0001.dcm") == []


def test_tilted_slices_turn_about_their_middle_row(tmp_path):
    write_small_ct(tmp_path / "ct", tilt_deg=12.0)
    for number in (1, 4):
        data = pydicom.dcmread(tmp_path / "ct" / f"{number:04d}.dcm")
        position = np.asarray(data.ImagePositionPatient, float)
        down = np.asarray(data.ImageOrientationPatient[3:], float)
        middle = position + 16 * 0.8 * down
        assert middle == pytest.approx([0.0, 16 * 0.8, (number - 1) * 3.0], abs=1e-5)


def test_lost_slices_leave_a_gap_in_the_numbers(tmp_path):
    write_small_ct(tmp_path / "ct", kept=(0, 1, 3))
    names = sorted(f.name for f in (tmp_path / "ct").iterdir())
    assert names == ["0001.dcm", "0002.dcm", "0004.dcm"]
