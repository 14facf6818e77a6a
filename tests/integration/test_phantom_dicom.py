"""What other people's programs make of simulated DICOM: a validator, two toolkits and an archive.

Each file kind the phantom commands write is made once, small, and given to all of them.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from renalkit.phantom.ceus.console import Layout
from renalkit.phantom.ceus.study import CeusOptions
from renalkit.phantom.ct.anatomy import CtPlan, Phase
from renalkit.phantom.faults import FaultDials
from renalkit.phantom.patients import PatientPlan
from renalkit.usecases.phantom import make_phantom
from renalkit.usecases.phantom_plans import PhantomPlan
from renalkit.usecases.progress import Silent

sys.path.insert(0, str(Path(__file__).parent))
others: Any = importlib.import_module("other_programs")
archive, program, run, picture = others.archive, others.program, others.run, others.picture

FAULTS = FaultDials(1.0, 0.0, 1.0, 1.0, 1.0, 1.0)
CT_FAULTS = FaultDials(1.0, 1.0, 1.0, 1.0, 1.0, 0.0)
RAW = {"jpeg_quality": None}


def people(seed: int = 3, **options: Any) -> PatientPlan:
    return PatientPlan(1, seed, views=(1, 1), **options)


def clip(layout: Layout, **options: Any) -> CeusOptions:
    small = {"duration_s": 2.0, "rate_hz": 3.0, "rows": 240, "cols": 320}
    return CeusOptions(layout=layout, **small | options)


def scan(*phases: Phase, **options: Any) -> CtPlan:
    return CtPlan(phases=phases, matrix=64, slice_spacing_mm=10.0, **options)


PLANS = {
    "us": PhantomPlan("us", people(), size=96),
    "us-raw": PhantomPlan("us", people(target="grade", normal_share=1.0), size=97, **RAW),
    "ceus": PhantomPlan("ceus", people(), ceus=clip(Layout.LEFT)),
    "ceus-uneven": PhantomPlan("ceus", people(), ceus=clip(Layout.RIGHT, jitter=0.2)),
    "ceus-raw": PhantomPlan("ceus", people(), ceus=clip(Layout.TOP, rows=241, cols=321), **RAW),
    "ceus-faults": PhantomPlan(
        "ceus", people(dials=FAULTS), ceus=clip(Layout.BOTTOM, jitter=0.2), **RAW
    ),
    "cohort-faults": PhantomPlan("cohort", people(dials=FAULTS), size=96, ceus=clip(Layout.LEFT)),
    "ct": PhantomPlan("ct", people(), ct=scan(Phase.NON_CONTRAST, Phase.EXCRETORY)),
    "ct-normal": PhantomPlan(
        "ct", people(), ct=scan(Phase.NEPHROGRAPHIC, normal_share=1.0, kidneys="horseshoe")
    ),
    "ct-faults": PhantomPlan("ct", people(dials=CT_FAULTS), ct=scan(Phase.CORTICOMEDULLARY)),
}
SENT = {
    "sent-jpeg": PhantomPlan("cohort", people(5), size=96, ceus=clip(Layout.LEFT)),
    "sent-raw": PhantomPlan("us", people(5), size=96, **RAW),
}
Made = Callable[[str], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The folder of a plan, made at its first use."""
    root = tmp_path_factory.mktemp("phantoms")

    def of(name: str) -> Path:
        if not (root / name).exists():
            make_phantom((PLANS | SENT)[name], root / name, Silent(), workers=1)
        return root / name

    return of


def files(folder: Path) -> list[Path]:
    return sorted((folder / "dicom").rglob("*.dcm"))


def kinds(folder: Path) -> list[Path]:
    """One file of each kind: a still, a clip, a slice of each series."""

    def kind(path: Path) -> str:
        return path.parent.name if path.parent.name.startswith("ct-") else path.name

    return list({kind(path): path for path in files(folder)}.values())


@pytest.mark.parametrize("name", PLANS)
def test_the_validator_finds_nothing(made: Made, name: str) -> None:
    dciodvfy = program("dciodvfy", package="dicom3tools")
    for path in kinds(made(name)):
        said = run(dciodvfy, "-new", path).stderr
        assert [x for x in said.splitlines() if x.startswith(("Error", "Warning"))] == [], path


@pytest.mark.parametrize("name", PLANS)
def test_the_files_of_a_study_agree(made: Made, name: str) -> None:
    """Attributes of patient, study, series and frame of reference, across files."""
    dcentvfy = program("dcentvfy", package="dicom3tools")
    done = run(dcentvfy, *files(made(name)))
    assert (done.stdout, done.stderr) == ("", "")


def pixels_of(path: Path) -> npt.NDArray[np.uint8]:
    """Frames (T,H,W,3) or slice (H,W), as pydicom decodes them."""
    data = pydicom.dcmread(path)
    found = data.pixel_array
    return found[None] if data.Modality == "US" and found.ndim == 3 else found


@pytest.mark.parametrize("name", PLANS)
def test_dcmtk_reads_header_and_frames(made: Made, tmp_path: Path, name: str) -> None:
    dcmdump = program("dcmdump", package="dcmtk")
    convert = program("dcm2img", "dcmj2pnm", package="dcmtk")
    for path in kinds(made(name)):
        done = run(dcmdump, "-Un", path)
        assert done.returncode == 0, done.stderr
        assert not [x for x in done.stderr.splitlines() if x.startswith(("E:", "W:"))]
        out = tmp_path / path.stem
        done = run(convert, "--write-png", "--all-frames", path, out)
        assert (done.returncode, done.stderr) == (0, "")
        ours = pixels_of(path)
        shown = sorted(out.parent.glob(f"{out.name}.*.png"), key=lambda p: int(p.suffixes[-2][1:]))
        if ours.ndim == 2:
            assert [picture(p).shape for p in shown] == [ours.shape]
            continue
        assert len(shown) == len(ours)
        for mine, theirs in ((ours[0], shown[0]), (ours[-1], shown[-1])):
            difference = np.abs(mine.astype(int) - picture(theirs))
            # Other inverse transforms and chroma filters differ a little.
            assert difference.mean() < 2.0


@pytest.mark.parametrize("name", [n for n in PLANS if not n.startswith("ct")])
def test_clips_say_where_and_when(made: Made, name: str) -> None:
    folder, options = made(name), PLANS[name].ceus
    for path in files(folder):
        data = pydicom.dcmread(path)
        screen = np.asarray(pixels_of(path))
        boxes = [
            (r.RegionLocationMinX0, r.RegionLocationMinY0, r.RegionLocationMaxX1, r.RegionLocationMaxY1)
            for r in data.SequenceOfUltrasoundRegions
        ]  # fmt: skip
        for x0, y0, x1, y1 in boxes:
            assert 0 <= x0 < x1 < data.Columns
            assert 0 <= y0 < y1 < data.Rows
            # There is a picture in every region, in every frame.
            assert screen[:, y0 : y1 + 1, x0 : x1 + 1].std(axis=(1, 2, 3)).min() > 5
        deltas = {r.PhysicalDeltaX for r in data.SequenceOfUltrasoundRegions}
        assert len(deltas) == 1
        # In cm; ten times as much where the fault is wrong units.
        scale = 10 if "faults" in name else 1
        assert 0.01 * scale < deltas.pop() < 0.3 * scale
        if "NumberOfFrames" not in data:
            assert len(boxes) == 1
            continue
        assert len(boxes) == 2
        assert (boxes[0][2] < boxes[1][0]) or (boxes[1][2] < boxes[0][0]) or (boxes[0][3] < boxes[1][1]) or (boxes[1][3] < boxes[0][1])  # fmt: skip
        lost = 1 if "faults" in name else 0
        whole = round(options.duration_s * options.rate_hz)
        assert len(screen) == data.NumberOfFrames == whole - lost
        if options.jitter:
            vector = np.asarray(data.FrameTimeVector, float)
            assert len(vector) == data.NumberOfFrames
            assert vector[0] == 0
            assert np.diff(vector[1:]).any()
            assert 0.5 < vector[1:].mean() * options.rate_hz / 1000 < 1.5
        else:
            assert float(data.FrameTime) == pytest.approx(1000 / options.rate_hz, abs=1e-5)


@pytest.mark.parametrize("name", [n for n in PLANS if n.startswith("ct")])
def test_slices_stack_to_a_volume(made: Made, name: str) -> None:
    folders = sorted({path.parent for path in files(made(name))})
    assert len({folder.name for folder in folders}) == len(PLANS[name].ct.phases)
    for folder in folders:
        slices = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
        across, down = np.split(np.asarray(slices[0].ImageOrientationPatient, float), 2)
        normal = np.cross(across, down)
        places = [float(normal @ np.asarray(s.ImagePositionPatient, float)) for s in slices]
        tilt = float(slices[0].get("GantryDetectorTilt", 0))
        assert np.degrees(np.arccos(normal[2])) == pytest.approx(abs(tilt), abs=1e-3)
        unit = 0.1 if "faults" in name else 1.0  # cm for mm is the fault
        steps = np.diff(places) / np.cos(np.radians(tilt)) / (10.0 * unit)
        assert np.allclose(steps, np.round(steps), atol=1e-4)
        # A stretch was lost: the step over it is a whole number of steps.
        assert steps.max() == pytest.approx(1.0, abs=1e-4) if unit == 1.0 else steps.max() > 1.5
        assert len({s.FrameOfReferenceUID for s in slices}) == 1
        assert min(s.pixel_array.min() for s in slices) >= 0
        hounsfield = slices[len(slices) // 2].pixel_array - 1024.0
        assert hounsfield.min() < -900
        assert 0.2 < ((hounsfield > -150) & (hounsfield < 300)).mean() < 0.8  # a body in air


# ---- An archive ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLANS)
def test_an_archive_takes_and_returns_them(made: Made, archive: Any, name: str) -> None:
    folder = made(name)
    archive.send(files(folder))
    for path in kinds(folder):
        sent = pydicom.dcmread(path)
        known = archive.instance(sent.SOPInstanceUID)
        tags = archive.get(f"instances/{known}/simplified-tags")
        for tag in ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "StudyDescription"):  # fmt: skip
            assert tags[tag] == str(sent[tag].value)
        frames = archive.get(f"instances/{known}/frames")
        assert len(frames) == sent.get("NumberOfFrames", 1)
        assert archive.bytes_of(f"instances/{known}/file") == path.read_bytes()
        preview = picture(archive.bytes_of(f"instances/{known}/frames/{frames[-1]}/preview"))
        assert preview.shape[:2] == (sent.Rows, sent.Columns)
        if sent.Modality == "US":
            assert np.abs(preview.astype(int) - pixels_of(path)[-1]).mean() < 2.0


@pytest.mark.parametrize(("name", "proposed"), [("sent-jpeg", "-xy"), ("sent-raw", "-xe")])
def test_an_archive_takes_them_over_the_network(
    made: Made, archive: Any, name: str, proposed: str
) -> None:
    """C-STORE, as a scanner sends."""
    storescu = program("storescu", package="dcmtk")
    paths = files(made(name))
    before = archive.get("statistics")["CountInstances"]
    done = run(storescu, proposed, "127.0.0.1", str(archive.dicom), *paths)
    assert (done.returncode, done.stderr) == (0, "")
    assert archive.get("statistics")["CountInstances"] == before + len(paths)


def test_cohorts_of_one_seed_do_not_meet_in_an_archive(made: Made) -> None:
    """The same patient's files of another plan are other instances."""
    seen = [pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID for n in PLANS for p in files(made(n))]  # fmt: skip
    assert len(seen) == len(set(seen))
