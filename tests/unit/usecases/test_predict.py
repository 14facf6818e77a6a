"""New studies go the road of a cohort and of its patients; what cannot be used says why."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from renalkit.domain.prediction import Prediction, SystemRef, Unit
from renalkit.domain.sample import SampleKey
from renalkit.errors import ConfigError, ModelRefused
from renalkit.store.files import write_json
from renalkit.usecases.ceus_outliner import SystemOutliner
from renalkit.usecases.predict import run_predict
from renalkit.usecases.progress import Silent
from renalkit.usecases.run_model import load_run_model

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
from predicting import PLAIN, SMALL, WAYS, contrast_run, untrained_run

dicom: Any = importlib.import_module("make_dicom")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("predict")


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    return contrast_run(place / "runs")


def predicted(model: Path, source: Path, output: Path, **options: Any) -> dict[str, Any]:
    return run_predict(load_run_model(model), source, output, replace(PLAIN, **options), Silent())


def pairs(folder: Path, lines: str, *pictures: str) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(4)
    for name in pictures:
        pixels = rng.integers(0, 255, (40, 44, 3) if name.startswith("c") else (40, 44), np.uint8)
        assert cv2.imwrite(str(folder / name), pixels)
    (folder / "pairs.csv").write_text(lines)
    return folder


def test_a_way_comes_back_from_metrics_json_as_it_was() -> None:
    ref = SystemRef("s", "s", "")
    key = SampleKey("p-" + "0" * 20, "s-" + "0" * 20, "", 0, 0)
    frames = [
        Prediction(Unit.FRAME, replace(key, frame=k), (1 - q, q), None, ref, 0)
        for k, q in enumerate((0.2, 0.7, 0.9))
    ]
    for way in WAYS:
        again = type(way).from_json(way.as_json())
        assert again.as_json() == way.as_json()
        assert again.patients(frames) == way.patients(frames)


@pytest.mark.parametrize("system", ["ceus-net", "repvgg-ceus", "bmode-net"])
def test_networks_of_one_pane_take_cines_and_pairs(run: Path, tmp_path: Path, system: str) -> None:
    lines = "patient,bmode,ceus\n7,b1.png,c1.png\n7,b2.png,c2.png\n8,b3.png,c3.png\n"
    names = [f"{m}{k}.png" for k in (1, 2, 3) for m in "bc"]
    folder = pairs(tmp_path / "pairs", lines, *names)
    (folder / "notes.txt").write_text("x")
    found = predicted(run / system, folder, tmp_path / "out")
    assert [p["files"] for p in found["patients"]] == [
        ["b1.png", "c1.png", "b2.png", "c2.png"],
        ["b3.png", "c3.png"],
    ]
    assert [p["frames"] for p in found["patients"]] == [2, 1]
    outcomes = {f["file"]: f["outcome"] for f in found["files"]}
    assert len(outcomes) == 8
    assert outcomes["notes.txt"] == "skipped"
    assert found["refused"] == []
    joined = predicted(run / system, folder, tmp_path / "out", one_patient=True)
    assert [p["frames"] for p in joined["patients"]] == [3]


def test_without_contrast_the_head_of_b_mode_answers_and_says_so(run: Path, tmp_path: Path) -> None:
    lines = "patient,bmode,ceus\n7,b1.png,c1.png\n7,b2.png,\n"
    folder = pairs(tmp_path / "pairs", lines, "b1.png", "c1.png", "b2.png")
    found = predicted(run / "mufnet-2022", folder, tmp_path / "out")
    (patient,) = found["patients"]
    assert patient["modalities"] == {"B": 1, "B+CEUS": 1}
    assert patient["notes"][0] == "1 of 2 frames by the head of B alone"
    alone = predicted(run / "ceus-net", folder, tmp_path / "out")
    assert [(r["file"], r["reason"]) for r in alone["refused"]] == [("b2.png", "missing-file")]
    assert "expected: CEUS" in alone["refused"][0]["words"]


def test_an_outlined_still_goes_to_the_head_of_b_mode(run: Path, tmp_path: Path) -> None:
    folder = pairs(tmp_path / "stills", "", "b1.png")
    (folder / "pairs.csv").rename(tmp_path / "boxes.csv")
    (tmp_path / "boxes.csv").write_text(
        "file,frame,lesion,x,y,width,height\nb1.png,0,1,5,6,20,22\n"
    )
    found = predicted(
        run / "mufnet-2022", folder / "b1.png", tmp_path / "out", regions=tmp_path / "boxes.csv"
    )
    (row,) = found["frames"]
    assert row["box"] == [5, 6, 20, 22]
    assert row["modalities"] == ["B"]
    still = predicted(
        run / "ceus-net", folder / "b1.png", tmp_path / "out", regions=tmp_path / "boxes.csv"
    )
    assert still["patients"] == []
    assert "a still image" in still["refused"][0]["words"]


def test_a_crop_too_small_or_blank_is_refused_before_the_network(run: Path, tmp_path: Path) -> None:
    lines = (
        "patient,bmode,ceus,x,y,width,height\n7,b1.png,c1.png,1,1,9,30\n7,b2.png,c2.png,0,0,30,30\n"
    )
    folder = pairs(tmp_path / "pairs", lines, "b1.png", "c1.png", "b2.png", "c2.png")
    contrast = np.full((40, 44, 3), 9, np.uint8)
    contrast[35:] = 200  # something, but not where the lesion is
    assert cv2.imwrite(str(folder / "c2.png"), contrast)
    found = predicted(run / "mufnet-2022", folder, tmp_path / "out")
    assert found["patients"] == []
    assert sorted((r["file"], r["reason"]) for r in found["refused"]) == [
        ("b1.png", "too-small"),
        ("b2.png", "constant-image"),
    ]


def test_folds_that_chose_something_need_the_figures_that_hold_it(run: Path, place: Path) -> None:
    bare = untrained_run(place / "bare", [{"name": "bmode-net", "params": SMALL}])
    bare.metrics.unlink()
    with pytest.raises(ModelRefused, match="rule or calibration is not known"):
        load_run_model(bare.path / "bmode-net")
    write_json(
        bare.metrics, {"systems": [{"label": "bmode-net", "classification": {"ways": [{}]}}]}
    )
    with pytest.raises(ModelRefused, match="damaged figures"):
        load_run_model(bare.path / "bmode-net")
    plain = untrained_run(place / "plain", [{"name": "bmode-net", "params": SMALL}], decided=False)
    plain.metrics.unlink()
    model = load_run_model(plain.path / "bmode-net" / "fold-1")
    (member,) = model.members
    assert (member.fold, member.threshold) == (1, None)


def test_whole_frames_get_masks_and_a_blank_frame_is_listed(place: Path, tmp_path: Path) -> None:
    small = {"width": 0.125, "cbam_min_hidden": 4}
    run = untrained_run(
        place / "whole", [{"name": "multitask-us", "params": small}], "frame", decided=False
    )
    folder = tmp_path / "in"
    folder.mkdir()
    blank = np.zeros((dicom.ROWS, dicom.COLS), np.uint8)
    frames = [dicom.picture(seed=1), blank, dicom.picture(seed=2)]
    stack = {0x7FE00010: ("OB", b"".join(f.tobytes() for f in frames))}
    (folder / "b.dcm").write_bytes(dicom.part10(dicom.cine(3, stack)))
    assert cv2.imwrite(str(folder / "a.png"), dicom.picture(seed=3))
    (folder / "note.txt").write_text("no picture")
    model = run.path / "multitask-us"
    found = predicted(model, folder, tmp_path / "out")
    assert [(r["file"], r["frame"]) for r in found["frames"]] == [
        ("a.png", 0),
        ("b.dcm", 0),
        ("b.dcm", 2),
    ]
    assert [(r["file"], r.get("frame")) for r in found["refused"]] == [
        ("b.dcm", 1),
        ("note.txt", None),
    ]
    assert {f["file"]: f["outcome"] for f in found["files"]} == {
        "a.png": "used",
        "b.dcm": "used-with-warning",
        "note.txt": "refused",
    }
    for row in found["frames"]:
        mask = cv2.imread(str(tmp_path / "out" / row["mask"]), cv2.IMREAD_GRAYSCALE)
        assert mask is not None
        assert int((mask > 0).sum()) == row["mask_area_px"]
        assert (tmp_path / "out" / row["overlay"]).is_file()
    assert [p["frames"] for p in found["patients"]] == [1, 2]
    assert found["rule"] == "mean of the frames; mean of 2 models"
    with pytest.raises(ConfigError, match="looks at whole frames"):
        predicted(model, folder, tmp_path / "out", outliner=SystemOutliner(load_run_model(model)))
    outline = SystemOutliner(load_run_model(model))(dicom.picture(seed=3))
    assert outline is None or outline.shape == (dicom.ROWS, dicom.COLS)
