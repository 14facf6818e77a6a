"""Contrast cines that do not show what is asked: refused or flagged, never a plausible number."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from renalkit.cli import app
from renalkit.errors import InputRefused
from renalkit.usecases.ceus import AnalyseRequest, run_analyse
from renalkit.usecases.ceus_settings import ceus_settings
from renalkit.usecases.progress import Silent

DATA = Path(os.environ.get("RENALKIT_DATA", Path(__file__).parents[4] / "shared" / "data"))
SETTINGS = ("dynamic_range_db=50", "fit.resamples=0", "frames.per_phase=4", "maps=false")


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One patient with a cine of 60 frames in 60 s."""
    folder = tmp_path_factory.mktemp("bad") / "phantom"
    words = ["phantom", "ceus", "-o", str(folder), "-n", "1", "--seconds", "60", "--fps", "1"]
    words += ["--rows", "450", "--cols", "600"]
    done = CliRunner().invoke(app, [*words, "--seed", "5", "--workers", "1", "--uncompressed"])
    assert done.exit_code == 0, done.output
    return folder


def changed(phantom: Path, to: Path, change: Callable[[Dataset], None]) -> Path:
    """The cine with its header or pixels changed."""
    data = pydicom.dcmread(next((phantom / "dicom").rglob("*.dcm")))
    change(data)
    data.save_as(to)
    return to


def analysed(cine: Path, phantom: Path, out: Path, *more: str) -> Any:
    settings = ceus_settings(None, (*SETTINGS, *more))
    frames = int(pydicom.dcmread(cine, stop_before_pixels=True).NumberOfFrames)
    head, *rows = (phantom / "boxes.csv").read_text().splitlines()
    table = cine.parent / "boxes.csv"
    kept = [row for row in rows if int(row.split(",")[1]) < frames]
    table.write_text("\n".join([head, *kept]) + "\n")
    request = AnalyseRequest(cine, out, settings, regions=table)
    (one,) = run_analyse(request, Silent())["analysed"]
    return json.loads((out / one["folder"] / "analysis.json").read_text())


def untimed(data: Dataset) -> None:
    for name in ("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate"):
        if name in data:
            delattr(data, name)


def times(words: str) -> Callable[[Dataset], None]:
    def change(data: Dataset) -> None:
        untimed(data)
        data.FrameTimeVector = [float(w) for w in words.split()]
        data.FrameIncrementPointer = 0x00181065

    return change


def step_of(ms: str) -> Callable[[Dataset], None]:
    def change(data: Dataset) -> None:
        untimed(data)
        data.FrameTime = ms

    return change


@pytest.mark.parametrize(
    "change",
    [
        *(untimed, step_of("0"), step_of("-1000")),
        *(times("0 1000 1000"), times("0 " + "1000 " * 60), times("0 " + "-5 " * 59)),
    ],
    ids=["missing", "zero", "negative", "vector short", "vector long", "vector negative"],
)
def test_D61_without_frame_times_there_are_no_phases_and_no_figures(
    phantom: Path, tmp_path: Path, change: Callable[[Dataset], None]
) -> None:
    found = analysed(changed(phantom, tmp_path / "a.dcm", change), phantom, tmp_path / "out")
    assert found["perfusion"] is None
    assert found["phases"] is None
    assert found["arrival"]["time_s"] is None
    assert any("frame times are not known" in words for words in found["warnings"])
    assert any("chosen evenly" in words for words in found["warnings"])
    assert found["clip"]["timing"] == "none"
    assert not list((tmp_path / "out").rglob("figures.csv"))


@pytest.mark.parametrize("ms", ["2000", "400"])
def test_frame_times_that_a_running_clock_contradicts_give_no_figures(
    phantom: Path, tmp_path: Path, ms: str
) -> None:
    cine = changed(phantom, tmp_path / "a.dcm", step_of(ms))
    found = analysed(cine, phantom, tmp_path / "out")
    assert found["clock"]["agrees"] is False
    assert (found["injection_s"], found["phases"], found["perfusion"]) == (None, None, None)
    assert any("frame times are not believed" in words for words in found["warnings"])
    # A user who knows better may leave the clock out.
    found = analysed(cine, phantom, tmp_path / "told", "clock=false")
    assert "frame times are not believed" not in " ".join(found["warnings"])
    assert found["perfusion"] is not None


def test_frames_missing_from_the_middle_give_no_figures(phantom: Path, tmp_path: Path) -> None:
    def gap(data: Dataset) -> None:
        pixels = data.pixel_array
        data.PixelData = np.concatenate([pixels[:25], pixels[32:]]).tobytes()
        data.NumberOfFrames = len(pixels) - 7
        data.PhotometricInterpretation = "RGB"
        step_of("1000")(data)

    found = analysed(changed(phantom, tmp_path / "a.dcm", gap), phantom, tmp_path / "out")
    assert (found["phases"], found["perfusion"]) == (None, None)
    assert any("frames may be missing" in words for words in found["warnings"])


def test_a_clock_set_again_is_not_believed_and_said(phantom: Path, tmp_path: Path) -> None:
    def again(data: Dataset) -> None:
        pixels = data.pixel_array.copy()
        x, y, width, height = clock_box(phantom, tmp_path)
        here = (slice(None), slice(y, y + height), slice(x, x + width))
        pixels[here] = np.concatenate([pixels[here][:30], pixels[here][:30]])
        data.PixelData, data.PhotometricInterpretation = pixels.tobytes(), "RGB"

    found = analysed(changed(phantom, tmp_path / "a.dcm", again), phantom, tmp_path / "out")
    assert found["clock"]["agrees"] is False
    assert found["injection_s"] is None
    assert found["phases"]["by"] == "arrival"
    assert any("burned-in clock is not believed" in words for words in found["warnings"])


def clock_box(phantom: Path, folder: Path) -> tuple[int, ...]:
    """Where the clock was found in the cine as it is."""
    cine = changed(phantom, folder / "as-it-is.dcm", lambda data: None)
    return tuple(analysed(cine, phantom, folder / "as-it-is")["clock"]["box"])


def test_D61_a_display_rate_is_used_and_flagged(phantom: Path, tmp_path: Path) -> None:
    def display(data: Dataset) -> None:
        untimed(data)
        data.RecommendedDisplayFrameRate = 1

    found = analysed(changed(phantom, tmp_path / "a.dcm", display), phantom, tmp_path / "out")
    assert found["clock"]["agrees"]
    assert any("display rate" in words for words in found["warnings"])


def frames_only(first: int, last: int) -> Callable[[Dataset], None]:
    def change(data: Dataset) -> None:
        pixels = data.pixel_array[first:last]
        data.PixelData = np.ascontiguousarray(pixels).tobytes()
        data.NumberOfFrames = len(pixels)
        data.PhotometricInterpretation = "RGB"
        untimed(data)
        data.FrameTime = "1000"

    return change


def test_a_cine_without_a_bolus_gives_no_figures(phantom: Path, tmp_path: Path) -> None:
    cine = changed(phantom, tmp_path / "a.dcm", still_agent)
    with pytest.raises(InputRefused, match=r"cannot be told: .*(contrast picture is|colour flow)"):
        analysed(cine, phantom, tmp_path / "refused")
    found = analysed(cine, phantom, tmp_path / "out", f"contrast={contrast_side(phantom)}")
    assert found["arrival"]["time_s"] is None
    assert "refused" in found["perfusion"]["regions"]["lesion"]


def contrast_side(phantom: Path) -> str:
    """Where the contrast pane is."""
    csv.field_size_limit(10**9)
    with next((phantom / "truth").rglob("frames.csv")).open(newline="") as file:
        row = next(r for r in csv.DictReader(file) if r["kidney_bmode_box"])
    boxes = (row["kidney_bmode_box"], row["kidney_contrast_box"])
    (x0, y0), (x1, y1) = ((int(v) for v in b.split()[:2]) for b in boxes)
    if abs(x1 - x0) > abs(y1 - y0):
        return "right" if x1 > x0 else "left"
    return "bottom" if y1 > y0 else "top"


def still_agent(data: Dataset) -> None:
    """Every frame shows the first one: the agent never comes."""
    pixels = data.pixel_array.copy()
    noise = np.random.default_rng(1).integers(0, 3, (*pixels.shape[:3], 1), np.uint8)
    pixels[:] = pixels[0]
    data.PixelData = (np.minimum(pixels, 250) + noise).astype(np.uint8).tobytes()
    data.PhotometricInterpretation = "RGB"


def test_a_bolus_cut_off_withholds_what_was_not_seen(phantom: Path, tmp_path: Path) -> None:
    cine = changed(phantom, tmp_path / "a.dcm", frames_only(0, 30))
    found = analysed(cine, phantom, tmp_path / "out")
    fit = found["perfusion"]["regions"]["lesion"]
    missing = fit.get("refused") or [n for n, f in fit["figures"].items() if f["value"] is None]
    assert missing
    if "figures" in fit:
        assert all(fit["figures"][n]["reason"] for n in missing)


def test_a_single_pane_is_refused(phantom: Path, tmp_path: Path) -> None:
    def one_pane(data: Dataset) -> None:
        region = data.SequenceOfUltrasoundRegions[0]
        x0, x1 = region.RegionLocationMinX0, region.RegionLocationMaxX1 + 1
        y0, y1 = region.RegionLocationMinY0, region.RegionLocationMaxY1 + 1
        pixels = np.ascontiguousarray(data.pixel_array[:, y0:y1, x0:x1])
        data.PixelData, data.PhotometricInterpretation = pixels.tobytes(), "RGB"
        data.Rows, data.Columns = pixels.shape[1:3]
        region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
        region.RegionLocationMaxX1, region.RegionLocationMaxY1 = x1 - x0 - 1, y1 - y0 - 1
        data.SequenceOfUltrasoundRegions = [region]

    cine = changed(phantom, tmp_path / "a.dcm", one_pane)
    request = AnalyseRequest(cine, tmp_path / "out", ceus_settings(None, SETTINGS))
    with pytest.raises(InputRefused, match=r"one panel|cannot be told"):
        run_analyse(request, Silent())


def test_a_still_is_refused(phantom: Path, tmp_path: Path) -> None:
    cine = changed(phantom, tmp_path / "a.dcm", frames_only(20, 21))
    request = AnalyseRequest(cine, tmp_path / "out", ceus_settings(None, SETTINGS))
    with pytest.raises(InputRefused, match="still image"):
        run_analyse(request, Silent())


def test_colour_doppler_is_refused_even_where_contrast_is_told(
    phantom: Path, tmp_path: Path
) -> None:
    def flow(data: Dataset) -> None:
        panes = sorted(
            data.SequenceOfUltrasoundRegions,
            key=lambda r: (r.RegionLocationMinX0, r.RegionLocationMinY0),
        )
        region = panes[-1 if side in ("right", "bottom") else 0]
        x0, x1 = region.RegionLocationMinX0, region.RegionLocationMaxX1
        y0, y1 = region.RegionLocationMinY0, region.RegionLocationMaxY1
        pixels = data.pixel_array.copy()
        pane = pixels[:, y0:y1, x0:x1]
        pane[:] = pane.max(axis=3, keepdims=True)
        rng = np.random.default_rng(7)
        rows, cols = pane.shape[1:3]
        box = np.zeros((rows, cols), np.bool_)
        box[rows // 4 : -rows // 4, cols // 3 : -40] = True
        for frame in pane:
            speed = cv2.GaussianBlur(rng.standard_normal((rows, cols)), (0, 0), 9)
            speed /= np.abs(speed).max()
            towards, away = box & (speed > 0.05), box & (speed < -0.05)
            shades = np.abs(speed)[..., None] * (140, 190, 20) + (90, 0, 0)
            frame[towards] = shades[towards].astype(np.uint8)
            frame[away] = shades[away][:, ::-1].astype(np.uint8)
        data.PixelData, data.PhotometricInterpretation = pixels.tobytes(), "RGB"

    side = contrast_side(phantom)
    cine = changed(phantom, tmp_path / "a.dcm", flow)
    for more, words in (((), "colour flow"), ((f"contrast={side}",), "no colour Doppler")):
        with pytest.raises(InputRefused, match=words):
            analysed(cine, phantom, tmp_path / "out", *more)


@pytest.mark.data
def test_no_real_ultrasound_file_gives_a_figure(tmp_path: Path) -> None:
    """Stills, plain cines, colour Doppler: refused one by one."""
    folder = DATA / "us_dicom"
    if not folder.is_dir():
        pytest.skip("real ultrasound files are not there; RENALKIT_DATA says where they are")
    request = AnalyseRequest(folder, tmp_path, ceus_settings(None, SETTINGS), keep_pixels=True)
    summary = run_analyse(request, Silent())
    assert summary["analysed"] == []
    words = [r["words"] for r in summary["refused"] if r["file"].endswith(".dcm")]
    assert len(words) == 14
    assert all("a still image" in w or "one panel" in w or "cannot be told" in w for w in words)
