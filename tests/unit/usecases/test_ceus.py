"""A contrast cine from file to figures: every frame has its reason, nothing plausible is made up."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from renalkit.cli import app
from renalkit.domain.geometry import Box, MaskRLE
from renalkit.errors import ConfigError, InputRefused
from renalkit.readers.contract import Limits
from renalkit.readers.dicom_pixels import describe, frame_places
from renalkit.readers.dicom_prescan import FileSource, prescan
from renalkit.readers.dicom_served import ServedFrames
from renalkit.usecases.ceus import (
    AnalyseRequest,
    PanelsRequest,
    masks_of,
    run_analyse,
    run_panels,
)
from renalkit.usecases.ceus_settings import CeusSettings, ceus_settings
from renalkit.usecases.progress import Silent

csv.field_size_limit(10**9)
SETTINGS = ("dynamic_range_db=50", "fit.resamples=20", "frames.per_phase=6", "maps=false")


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One patient with a cine of 112 frames in 75 s."""
    folder = tmp_path_factory.mktemp("ceus") / "phantom"
    words = ["phantom", "ceus", "-o", str(folder), "-n", "1", "--seconds", "75", "--fps", "1.5"]
    done = CliRunner().invoke(app, [*words, "--seed", "5", "--workers", "1"])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def cine(phantom: Path) -> Path:
    return next((phantom / "dicom").rglob("*.dcm"))


def truth(phantom: Path) -> list[dict[str, str]]:
    with next((phantom / "truth").rglob("frames.csv")).open(newline="") as file:
        return list(csv.DictReader(file))


def mask_files(phantom: Path, folder: Path, frame: int) -> dict[str, Path]:
    """True masks of lesion and cortex in the B-mode pane of a frame, as PNG."""
    found: dict[str, Path] = {}
    for name in ("lesion", "cortex"):
        text = truth(phantom)[frame][f"{name}_mask"].split(",")[0]
        found[name] = folder / f"{name}.png"
        cv2.imwrite(str(found[name]), MaskRLE.parse(text).decode().astype(np.uint8) * 255)
    return found


def in_plane(phantom: Path) -> int:
    return next(
        i
        for i, row in enumerate(truth(phantom))
        if i > 45 and row["lesion_mask"] and float(row["out_of_plane"]) < 0.01
    )


def analysed(cine: Path, out: Path, settings: Sequence[str] = SETTINGS, **more: Any) -> Any:
    request = AnalyseRequest(cine, out, ceus_settings(None, settings), **more)
    summary = run_analyse(request, Silent())
    assert not summary["refused"]
    (one,) = summary["analysed"]
    return one["analysis"], out / one["folder"]


@pytest.fixture(scope="session")
def whole(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The analysis with true masks of lesion and cortex, and DICOM results."""
    folder = tmp_path_factory.mktemp("whole")
    frame = in_plane(phantom)
    masks = mask_files(phantom, folder, frame)
    path = next((phantom / "dicom").rglob("*.dcm"))
    given = (*SETTINGS, "maps=true")
    return analysed(path, folder / "out", given, masks=masks, frame=frame, dicom=True)


@pytest.fixture(scope="session")
def boxed(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The analysis with the boxes that the phantom tells of."""
    path = next((phantom / "dicom").rglob("*.dcm"))
    return analysed(path, tmp_path_factory.mktemp("boxed"), regions=phantom / "boxes.csv")[0]


@pytest.fixture(scope="session")
def of_a_folder(
    phantom: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """A folder with the cine and a note, analysed without any region: summary and results."""
    folder, out = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out")
    shutil.copy(next((phantom / "dicom").rglob("*.dcm")), folder / "a.dcm")
    (folder / "notes.txt").write_text("nothing")
    request = AnalyseRequest(folder, out, ceus_settings(None, SETTINGS))
    return run_analyse(request, Silent()), out


def test_every_file_of_the_results_is_there(whole: tuple[Any, Path]) -> None:
    _, folder = whole
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert names == {
        *("analysis.json", "frames.csv", "curves.csv", "figures.csv", "maps.csv", "maps.npz"),
        *("page.svg", "page.png", "panels.png"),
        *(f"maps/{name}.png" for name in ("PE", "TTP", "WiAUC", "mTT")),
        *(f"dicom/{name}.dcm" for name in ("outlines", "report", "page")),
    }


def test_every_frame_has_a_reason_and_the_chosen_ones_their_phase(
    whole: tuple[Any, Path], phantom: Path
) -> None:
    found, folder = whole
    with (folder / "frames.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == found["clip"]["frames"] == len(truth(phantom))
    assert all(row["reason"] for row in rows)
    chosen = [int(row["frame"]) for row in rows if row["chosen"] == "yes"]
    assert chosen == found["chosen"]["frames"]
    assert found["chosen"]["of_phase"] == {"cortical": 6, "medullary": 6}
    assert {rows[i]["phase"] for i in chosen} == {"cortical", "medullary"}
    assert all(rows[i]["in_plane"] == "yes" for i in chosen)


def test_figures_have_intervals_units_and_a_reference(whole: tuple[Any, Path]) -> None:
    found, folder = whole
    regions = found["perfusion"]["regions"]
    assert set(regions) == {"lesion", "cortex"}
    peak = regions["lesion"]["figures"]["TTP"]
    assert peak["low"] < peak["value"] < peak["high"]
    assert peak["unit"] == "s"
    (comparison,) = found["perfusion"]["comparisons"]
    assert (comparison["of"], comparison["reference"]) == ("lesion", "cortex")
    with np.load(folder / "maps.npz") as maps:
        assert maps["PE"].shape == maps["quality"].shape
    assert "not a medical device" in found["use"].lower()


def test_the_same_words_again_keep_what_is_there(
    whole: tuple[Any, Path], phantom: Path, cine: Path
) -> None:
    found, folder = whole
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    frame = in_plane(phantom)
    masks = mask_files(phantom, folder.parent.parent, frame)
    given = (*SETTINGS, "maps=true")
    again, _ = analysed(cine, folder.parent, given, masks=masks, frame=frame, dicom=True)
    assert again == found
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_box_table_as_ingest_takes_it(boxed: Any) -> None:
    assert set(boxed["perfusion"]["regions"]) == {"lesion"}
    assert any("ellipse" in words for words in boxed["warnings"])


def test_without_a_region_there_are_no_figures(of_a_folder: tuple[dict[str, Any], Path]) -> None:
    summary, out = of_a_folder
    (one,) = summary["analysed"]
    found, folder = one["analysis"], out / one["folder"]
    assert found["perfusion"] is None
    assert found["maps"] == []
    assert any("no region given" in words for words in found["warnings"])
    assert not (folder / "figures.csv").exists()
    assert found["chosen"]["frames"]


def test_without_the_dynamic_range_figures_are_of_grey_levels(
    phantom: Path, cine: Path, tmp_path: Path
) -> None:
    given = [s for s in SETTINGS if "dynamic" not in s]
    found, _ = analysed(cine, tmp_path / "out", given, regions=phantom / "boxes.csv")
    figures = found["perfusion"]["regions"]["lesion"]["figures"]
    assert all(name.endswith("_display") for name in figures if name in ("PE", "WiAUC"))
    assert "PE_display" in figures
    assert any("dynamic range not given" in words for words in found["warnings"])


def test_the_injection_is_the_zero_of_the_times(
    boxed: Any, phantom: Path, cine: Path, tmp_path: Path
) -> None:
    plain = boxed
    given = (*SETTINGS, "injection_s=-4")
    later, _ = analysed(cine, tmp_path / "b", given, regions=phantom / "boxes.csv")
    first, second = (
        f["perfusion"]["regions"]["lesion"]["figures"]["TTP"]["value"] for f in (plain, later)
    )
    assert plain["clock"]["agrees"]
    assert plain["injection_s"] == pytest.approx(0, abs=0.7)
    assert second == pytest.approx(first + plain["injection_s"] + 4, abs=0.05)
    assert any("injection given" in words for words in later["warnings"])


def test_a_folder_is_analysed_file_by_file(of_a_folder: tuple[dict[str, Any], Path]) -> None:
    summary, out = of_a_folder
    assert [a["file"] for a in summary["analysed"]] == ["a.dcm"]
    assert [r["file"] for r in summary["refused"]] == ["notes.txt"]
    assert json.loads((out / "summary.json").read_text()) == summary


def damaged(cine: Path, to: Path, frames: Sequence[int]) -> Path:
    """The cine with frames that do not begin like a JPEG."""
    raw = bytearray(cine.read_bytes())
    with FileSource(cine) as file:
        scan = prescan(cine, Limits())
        places, _ = frame_places(scan, describe(scan, Limits()), file)
    for frame in frames:
        raw[places[frame][0][0]] = 0
    to.write_bytes(raw)
    return to


def test_damaged_frames_are_told_and_not_chosen(phantom: Path, cine: Path, tmp_path: Path) -> None:
    bad = damaged(cine, tmp_path / "a.dcm", [30, 31])
    found, folder = analysed(bad, tmp_path / "out", regions=phantom / "boxes.csv")
    assert "unusable frames, set to zero: 30, 31" in found["warnings"]
    assert not {30, 31} & set(found["chosen"]["frames"])
    with (folder / "frames.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {rows[i]["in_plane"] for i in (30, 31)} == {"no"}


def test_a_cine_of_mostly_damaged_frames_is_refused(cine: Path, tmp_path: Path) -> None:
    bad = damaged(cine, tmp_path / "a.dcm", range(20, 112))
    with pytest.raises(InputRefused, match="does not begin like its compression"):
        analysed(bad, tmp_path / "out")
    with pytest.raises(InputRefused, match="does not begin like its compression"):
        run_panels(PanelsRequest(bad))
    assert not (tmp_path / "out" / "a.dcm").exists()


def test_panes_are_told_from_few_frames(cine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: set[int] = set()
    windows = ServedFrames.windows

    def noted(self: ServedFrames, index: int, boxes: Sequence[Box]) -> Any:
        looked_at.add(index)
        return windows(self, index, boxes)

    monkeypatch.setattr(ServedFrames, "windows", noted)
    assert run_panels(PanelsRequest(cine))["answer"] == "two-panels"
    assert len(looked_at) <= 25


def test_regions_that_fit_nothing_are_refused(cine: Path, tmp_path: Path) -> None:
    table = tmp_path / "boxes.csv"
    head = "file,frame,x,y,width,height,lesion\n"
    for row, words in (
        ("a,999,10,60,50,50,1\n", "frame 999"),
        ("a,3,380,200,60,60,1\n", "neither pane"),
        ("a,3,100,200,2,2,1\n", "fewer than"),
    ):
        table.write_text(head + row)
        with pytest.raises(InputRefused, match=words):
            analysed(cine, tmp_path / "out", regions=table)


def test_what_is_no_dual_cine_is_refused(tmp_path: Path) -> None:
    still = tmp_path / "still.png"
    cv2.imwrite(str(still), np.zeros((100, 100), np.uint8))
    with pytest.raises(InputRefused, match="neither DICOM nor a video"):
        analysed(still, tmp_path / "out")


def test_options_that_contradict_are_told_together(cine: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--frame"):
        AnalyseRequest(cine, tmp_path, CeusSettings(), masks={"lesion": cine})
    with pytest.raises(ConfigError, match="inside the folder"):
        AnalyseRequest(cine.parent, cine.parent / "out", CeusSettings())
    with pytest.raises(ConfigError) as caught:
        masks_of(["lesion", f"a={cine}", f"a={cine}"])
    assert len(caught.value.problems) == 2
    with pytest.raises(ConfigError) as caught:
        ceus_settings(None, ["frames.rule=best", "dynamic_range_db=900", "motion.grow=-1"])
    assert len(caught.value.problems) == 3
    with pytest.raises(ConfigError, match="must rise"):
        ceus_settings(None, ["phases.cortical_s=40"])


def test_the_command_line_shows_panes_and_saves_a_preset(cine: Path, tmp_path: Path) -> None:
    out, preset = tmp_path / "panes.png", tmp_path / "layouts.toml"
    words = ["ceus", "panels", str(cine), "-o", str(out), "--save-preset", str(preset), "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["answer"] == "two-panels"
    assert cv2.imread(str(out)).shape[:2] == (found["rows"], found["cols"])
    again = CliRunner().invoke(app, ["ceus", "panels", str(cine), "--presets", str(preset)])
    assert "two panels" in again.output
