"""What other people's programs make of our results: a validator, three readers and an archive.

Sources are simulated clips and stills as the phantom commands write them, and the real files where
they are present.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from renalkit.domain.study import RoiOrigin, Side
from renalkit.phantom.ceus.console import Layout
from renalkit.phantom.ceus.study import CeusOptions
from renalkit.phantom.patients import PatientPlan
from renalkit.readers.dicom_source import read_us_header
from renalkit.usecases.phantom import make_phantom
from renalkit.usecases.phantom_plans import PhantomPlan
from renalkit.usecases.progress import Silent
from renalkit.writers.dicom_out import codes
from renalkit.writers.dicom_out.capture import secondary_capture
from renalkit.writers.dicom_out.general import ResultLabel, save
from renalkit.writers.dicom_out.perfusion import coded, compared
from renalkit.writers.dicom_out.report import Curve, Finding, Quantity, measurement_report
from renalkit.writers.dicom_out.segmentation import Segment, us_segmentation

sys.path.insert(0, str(Path(__file__).parent))
others: Any = importlib.import_module("other_programs")
archive, program, run, picture = others.archive, others.program, others.run, others.picture

DATA = Path(os.environ.get("RENALKIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
REAL = sorted((DATA / "us_dicom").glob("*.dcm"))
NO_REAL = "NO REAL ULTRASOUND FILES (set RENALKIT_DATA): results on them are NOT tested"
LABEL = ResultLabel("Renal masses", 901, datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC), repeatable=True)
NETWORK = codes.Algorithm("multitask-us", "0.1.0", codes.ARTIFICIAL_INTELLIGENCE, {"fold": "2"})
TRACKER = codes.Algorithm("motion track", "0.1.0", codes.TRACKING)
FIT = codes.Algorithm("lognormal fit", "0.1.0", codes.FITTING, {"interval": "95 % block bootstrap"})
SHAPES = ("clip", "clip-odd", "still", "still-odd")
KINDS = ("segmentation", "picture", "report")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of each shape; odd ones have sizes that fill no whole bytes of bits."""
    root = tmp_path_factory.mktemp("sources")
    people = PatientPlan(1, 3, views=(1, 1))
    found: dict[str, Path] = {}
    for name, even in (("", True), ("-odd", False)):
        clip = CeusOptions(
            layout=Layout.LEFT,
            duration_s=2.0,
            rate_hz=3.0,
            rows=240 if even else 241,
            cols=320 if even else 321,
        )
        quality = 90 if even else None
        for kind in ("ceus", "us"):
            plan = PhantomPlan(
                kind, people, size=96 if even else 97, ceus=clip, jpeg_quality=quality
            )
            make_phantom(plan, root / f"{kind}{name}", Silent(), workers=1)
            path = sorted((root / f"{kind}{name}" / "dicom").rglob("*.dcm"))[0]
            found[("clip" if kind == "ceus" else "still") + name] = path
    return found


def outlines(header: Dataset) -> dict[str, dict[int, Any]]:
    """Masks by structure and frame: overlapping discs, one with a hole and an island."""
    rows, cols = np.indices((header.Rows, header.Columns))
    frames = int(header.get("NumberOfFrames") or 1)

    def disc(x: float, y: float, radius: float) -> Any:
        across, down = cols - x * header.Columns, rows - y * header.Rows
        return across**2 + down**2 <= (radius * min(header.Rows, header.Columns)) ** 2

    kidney = disc(0.5, 0.5, 0.3) & ~disc(0.5, 0.5, 0.1) | disc(0.9, 0.9, 0.05)
    return {
        "Lesion 1": {k: disc(0.4 + 0.01 * k, 0.5, 0.12) for k in {0, frames // 2, frames - 1}},
        "Kidney": {0: kidney},
        "Cortex": {frames - 1: disc(0.55, 0.5, 0.2)},
    }


def results(header: Dataset, label: ResultLabel = LABEL) -> dict[str, Dataset]:
    """One result of each kind."""
    masks = outlines(header)
    segments = [
        Segment("Lesion 1", codes.LESION, masks["Lesion 1"], RoiOrigin.PREDICTED, NETWORK, Side.LEFT),
        Segment("Kidney", codes.KIDNEY, masks["Kidney"], side=Side.LEFT),
        Segment("Cortex", codes.CORTEX, masks["Cortex"], RoiOrigin.PROPAGATED, TRACKER, Side.LEFT),
    ]  # fmt: skip
    segmentation = us_segmentation(header, segments, label)
    drawn = np.zeros((120, 91, 3), np.uint8)
    drawn[30:60, 20:50] = (255, 80, 10)
    shown = secondary_capture(
        header,
        drawn,
        replace(label, series_number=902),
        burned_in=False,
        frames=[0],
        comment="Outline of lesion 1.",
        side=Side.LEFT,
    )
    frames = range(int(header.get("NumberOfFrames") or 1))
    curve = Curve(
        codes.ECHO_POWER, codes.POWER, [k / 3 for k in frames], [1.5 * k for k in frames], frames
    )
    figures = [
        Quantity(coded("TTP")[0], 17.25, codes.SECOND, (16.0, 18.5)),
        Quantity(coded("PE")[0], 9.7344, codes.POWER, (9.0, 10.0)),
        Quantity(compared("PE", ratio=True)[0], 0.9, codes.RATIO),
        Quantity(codes.LONG_AXIS, 31.5, codes.MM),
        Quantity(codes.PROBABILITY, 0.75, codes.ONE),
    ]
    findings = [
        Finding("Lesion 1", codes.LESION, figures, frame=0, mask=masks["Lesion 1"][0], curve=curve, side=Side.LEFT, algorithm=FIT),
        Finding("Kidney", codes.KIDNEY, frame=0, mask=masks["Kidney"][0]),
        Finding("Cortex", codes.CORTEX, [figures[0]]),
    ]  # fmt: skip
    report = measurement_report(
        header, findings, replace(label, series_number=903), segmentation=segmentation
    )
    return dict(zip(KINDS, (segmentation, shown, report), strict=True))


Made = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def made(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The file of a shape and kind."""
    root = tmp_path_factory.mktemp("results")
    for shape, path in sources.items():
        for kind, data in results(read_us_header(path)).items():
            save(data, root / f"{shape}-{kind}.dcm")
    return lambda shape, kind: root / f"{shape}-{kind}.dcm"


EVERY = [pytest.mark.parametrize("shape", SHAPES), pytest.mark.parametrize("kind", KINDS)]


def every(test: Any) -> Any:
    """For each shape of source and kind of result."""
    for mark in EVERY:
        test = mark(test)
    return test


@every
def test_the_validator_finds_nothing(made: Made, shape: str, kind: str) -> None:
    assert others.validated(made(shape, kind)) == []


@pytest.mark.parametrize("shape", SHAPES)
def test_results_agree_with_their_source(made: Made, sources: dict[str, Path], shape: str) -> None:
    """Attributes of patient and study; what of the source is left out is named."""
    dcentvfy = program("dcentvfy", package="dicom3tools")
    said = run(dcentvfy, sources[shape], *(made(shape, kind) for kind in KINDS)).stderr
    left_out = ("StudyDescription", "PatientAge")
    # The validator's table puts a report's accession number with the series; the values agree.
    known = ("Different information entities for attribute - Element=<AccessionNumber>",)
    assert [
        x
        for x in said.splitlines()
        if not any(f"Element=<{name}>" in x and "not the other" in x for name in left_out)
        and not any(k in x for k in known)
    ] == []


@every
def test_dcmtk_reads_them(made: Made, tmp_path: Path, shape: str, kind: str) -> None:
    path = made(shape, kind)
    done = run(program("dcmdump", package="dcmtk"), "-Un", path)
    assert done.returncode == 0
    assert not [x for x in done.stderr.splitlines() if x.startswith(("E:", "W:"))]
    assert "research use only" in done.stdout
    if kind == "report":
        done = run(program("dsrdump", package="dcmtk"), path)
        assert done.returncode == 0
        assert "Imaging Measurement Report" in done.stdout
        said = [x for x in done.stderr.splitlines() if x.startswith(("E:", "W:"))]
        assert [x for x in said if "does not support this Specific Character Set" not in x] == []
    if kind == "picture":
        convert = program("dcm2img", "dcmj2pnm", package="dcmtk")
        assert run(convert, "--write-png", path, tmp_path / "a.png").returncode == 0
        assert np.array_equal(picture(tmp_path / "a.png"), pydicom.dcmread(path).pixel_array)


@pytest.mark.parametrize("shape", SHAPES)
def test_highdicom_finds_every_mask_on_its_frame(
    made: Made, sources: dict[str, Path], shape: str
) -> None:
    header = read_us_header(sources[shape])
    found = hd.seg.segread(made(shape, "segmentation"))
    frames = int(header.get("NumberOfFrames") or 1)
    if shape.startswith("still"):
        pixels = found.get_pixels_by_source_instance([header.SOPInstanceUID])
    else:
        pixels = found.get_pixels_by_source_frame(
            header.SOPInstanceUID, range(1, frames + 1), assert_missing_frames_are_empty=True
        )
    assert pixels.shape[0] == frames
    for number, masks in enumerate(outlines(header).values()):
        for frame in range(frames):
            there = masks.get(frame, np.zeros((header.Rows, header.Columns), bool))
            assert np.array_equal(pixels[frame, :, :, number], there)


@pytest.mark.parametrize("shape", SHAPES)
def test_highdicom_finds_every_figure(made: Made, shape: str) -> None:
    found = hd.sr.srread(made(shape, "report"))
    lesion, kidney = found.content.get_planar_roi_measurement_groups()
    values = {m.name.meaning: (m.value, m.unit.value) for m in lesion.get_measurements()}
    assert values["Time To Peak"] == (17.25, "s")
    assert values["Peak enhancement"] == (9.7344, "[arb'U]")
    assert values["Long axis"] == (31.5, "mm")
    assert lesion.roi is not None
    assert kidney.referenced_segmentation_frame is not None
    moments = found.content.get_image_measurement_groups(tracking_uid=lesion.tracking_uid)
    assert len(moments) == (1 if shape.startswith("still") else 6)


@every
def test_an_archive_stores_them_by_the_web(
    made: Made, sources: dict[str, Path], archive: Any, shape: str, kind: str
) -> None:
    """STOW-RS beside the source; the bytes come back, in the same study of the same patient."""
    path, source = made(shape, kind), sources[shape]
    archive.store(source)
    answer = archive.store(path)
    uid = pydicom.dcmread(path).SOPInstanceUID
    assert answer["00081199"]["Value"][0]["00081155"]["Value"] == [uid]
    assert not answer.get("00081198", {}).get("Value"), "a failed instance"
    known, origin = archive.instance(uid), archive.instance(read_us_header(source).SOPInstanceUID)
    assert archive.bytes_of(f"instances/{known}/file") == path.read_bytes()
    for level in ("patient", "study"):
        here, there = (archive.get(f"instances/{i}/{level}")["ID"] for i in (known, origin))
        assert here == there
    assert archive.get(f"instances/{known}/series")["ID"] != archive.get(f"instances/{origin}/series")["ID"]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_the_archive_shows_the_picture(made: Made, archive: Any, shape: str) -> None:
    path = made(shape, "picture")
    archive.store(path)
    known = archive.instance(pydicom.dcmread(path).SOPInstanceUID)
    shown = picture(archive.bytes_of(f"instances/{known}/preview"))
    assert np.array_equal(shown, pydicom.dcmread(path).pixel_array)


def test_an_archive_takes_them_over_the_network(
    sources: dict[str, Path], archive: Any, tmp_path: Path
) -> None:
    """C-STORE, as a workstation sends; both ends write file meta information of their own."""
    sent = results(read_us_header(sources["clip"]), replace(LABEL, instance_number=2))
    for kind, data in sent.items():
        save(data, tmp_path / f"{kind}.dcm")
    storescu = program("/usr/bin/storescu", "storescu", package="dcmtk")
    done = run(storescu, "-R", "127.0.0.1", str(archive.dicom), *sorted(tmp_path.iterdir()))
    assert (done.returncode, done.stderr) == (0, "")
    for kind, data in sent.items():
        kept = archive.bytes_of(f"instances/{archive.instance(data.SOPInstanceUID)}/file")
        assert pydicom.dcmread(BytesIO(kept)) == pydicom.dcmread(tmp_path / f"{kind}.dcm")


# ---- Real files ----------------------------------------------------------------------------

CARRIED_OVER = ("ReferencedSOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "StudyDate")
CARRIED_OVER += ("StudyTime", "PatientName", "PatientID", "StudyID", "ReferringPhysicianName")


@pytest.mark.data
@pytest.mark.skipif(not REAL, reason=NO_REAL)
@pytest.mark.parametrize("path", REAL, ids=lambda p: p.stem)
def test_results_on_real_files(path: Path, tmp_path: Path, archive: Any) -> None:
    """What the validator says against them is about values that the source brought along."""
    header = read_us_header(path)
    for kind, data in results(header).items():
        file = tmp_path / f"{kind}.dcm"
        save(data, file)
        for line in others.validated(file):
            mine = not any(f"{name}(" in line.split(" - ")[1] for name in CARRIED_OVER)
            frames_of_a_still = "ReferencedFrameNumber" in line and path.stem == "OBXXXX1A_2frame"
            assert not mine or frames_of_a_still, (kind, line)
        archive.store(file)
        known = archive.instance(data.SOPInstanceUID)
        assert archive.bytes_of(f"instances/{known}/file") == file.read_bytes()
    found = hd.seg.segread(tmp_path / "segmentation.dcm")
    masks = outlines(header)["Lesion 1"]
    if int(header.get("NumberOfFrames") or 1) > 1:
        pixels = found.get_pixels_by_source_frame(
            header.SOPInstanceUID, [k + 1 for k in sorted(masks)], segment_numbers=[1]
        )
    else:
        pixels = found.get_pixels_by_source_instance([header.SOPInstanceUID], segment_numbers=[1])
    assert np.array_equal(pixels[..., 0], [masks[k] for k in sorted(masks)])
