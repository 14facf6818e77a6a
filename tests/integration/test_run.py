"""The whole road on a small phantom cohort, through the command line as a user walks it."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from renalkit.cli import main

sys.path.insert(0, str(Path(__file__).parents[1] / "corpus"))
dicom: Any = importlib.import_module("make_dicom")
videos: Any = importlib.import_module("make_images")

EXPERIMENT = """
name = "tiny"
cohort = "cohorts/phantom"
[split]
folds = 2
[input]
size = 32
[train]
epochs = 2
batch_size = 8
lr = 0.003
threads = 1
[statistics]
bootstrap = 200
[[systems]]
name = "multitask-us"
params = { width = 0.125, cbam_min_hidden = 4 }
[[systems]]
name = "unet"
params = { width = 0.125 }
[[systems]]
name = "resnet18"
params = { width = 0.125 }
"""


class Done(NamedTuple):
    """What a command printed."""

    stdout: str
    stderr: str


def program(*words: object, cwd: Path) -> Done:
    """The command in a process of its own, as a user starts it."""
    done = subprocess.run(
        [sys.executable, "-m", "renalkit", *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return Done(done.stdout, done.stderr)


def renalkit(*words: object, cwd: Path, expect: int = 0) -> Done:
    """The command in this process: the same entry point, without loading torch each time."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["renalkit", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == expect, err.getvalue()[-3000:]
    return Done(out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a phantom cohort that was trained and reported."""
    folder = tmp_path_factory.mktemp("road")
    options = ("--pictures", "-o", "images", "-n", 16, "--size", 96, "--seed", 5)
    program("phantom", "us", *options, cwd=folder)
    program("ingest", "images", "-o", "cohorts/phantom", cwd=folder)
    (folder / "tiny.toml").write_text(EXPERIMENT)
    program("run", "tiny.toml", "-o", "runs", cwd=folder)
    return folder


def test_a_run_leaves_everything_design_promises(place: Path) -> None:
    run = place / "runs/tiny"
    for name in (
        *("experiment.toml", "experiment.json", "record.json", "folds.json", "check.json"),
        *("metrics.json", "comparisons.json", "cases.csv", "report.html", "MANIFEST.sha256"),
        *(f"{s}/complexity.json" for s in ("multitask-us", "unet", "resnet18")),
        *(
            f"{s}/fold-{k}/{f}"
            for s in ("multitask-us", "unet", "resnet18")
            for k in (0, 1)
            for f in ("weights.safetensors", "history.csv", "test.parquet", "done.json")
        ),
    ):
        assert (run / name).is_file(), name
    assert not list(run.rglob("state")), "training state is gone once a fold is finished"
    done = subprocess.run(["sha256sum", "-c", "--quiet", "MANIFEST.sha256"], cwd=run, check=False)
    assert done.returncode == 0


def test_every_tested_frame_is_predicted_once_and_out_of_fold(place: Path) -> None:
    from renalkit.domain.sample import b_mode_samples
    from renalkit.metrics.detection import lesions_of
    from renalkit.store.cohorts import load_cohort
    from renalkit.store.predictions import load_predictions
    from renalkit.store.splits import load_split

    run = place / "runs/tiny"
    samples = b_mode_samples(load_cohort(place / "cohorts/phantom"))
    split = load_split(run / "folds.json")
    for label in ("multitask-us", "unet", "resnet18"):
        found = [
            p for k in (0, 1) for p in load_predictions(run / label / f"fold-{k}/test.parquet")
        ]
        assert sorted(p.key for p in found) == [s.key for s in samples]
        for p in found:
            assert p.fold is not None
            assert p.key.patient in split.folds[p.fold].test
            assert p.key.patient not in split.folds[p.fold].train | split.folds[p.fold].validation
            if label == "resnet18":
                assert p.mark_scores is None
                continue
            assert p.mask is not None
            assert p.mark_scores is not None
            assert len(p.mark_scores) == len(lesions_of(p.mask.decode()))
            assert all(score >= 0.5 for score in p.mark_scores), "the mask's own threshold"


def test_figures_carry_n_unit_and_method(place: Path) -> None:
    metrics = json.loads((place / "runs/tiny/metrics.json").read_text())
    assert [s["label"] for s in metrics["systems"]] == [
        "multitask-us",
        "unet",
        "resnet18",
        "clinical",
    ]
    joint = metrics["systems"][0]
    for figure in (
        joint["segmentation"]["pooled"]["dice"],
        joint["classification"]["patient"]["auc"],
        joint["classification"]["patient"]["accuracy"],
    ):
        assert figure["n"] > 0
        assert figure["unit"] == "patient"
        assert figure["method"]
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert joint["classification"]["patient"]["n"] == 16
    assert metrics["systems"][1]["classification"] is None
    assert metrics["systems"][2]["segmentation"] is None
    rows = json.loads((place / "runs/tiny/comparisons.json").read_text())["rows"]
    # Distances exist only where both outline something, which networks of two epochs may not.
    found = {(r["label"], r["metric"]) for r in rows} - {("unet", "hd95"), ("unet", "assd")}
    assert found == {
        ("unet", "dice"),
        ("unet", "iou"),
        ("unet", "nsd"),
        ("unet", "recall"),
        ("resnet18", "auc"),
        ("resnet18", "accuracy"),
        ("clinical", "auc"),
        ("clinical", "accuracy"),
    }


def test_running_again_trains_nothing_and_changes_nothing(place: Path) -> None:
    run = place / "runs/tiny"
    weights = {p: p.stat().st_mtime_ns for p in run.rglob("weights.safetensors")}
    before = (run / "metrics.json").read_bytes()
    done = renalkit("run", "tiny.toml", "-o", "runs", "--json", cwd=place)
    assert json.loads(done.stdout)["complete"] is True
    assert {p: p.stat().st_mtime_ns for p in run.rglob("weights.safetensors")} == weights
    assert (run / "metrics.json").read_bytes() == before


def test_the_finished_run_can_be_verified(place: Path) -> None:
    found = json.loads(renalkit("verify", "runs/tiny", "--json", cwd=place).stdout)
    assert found["differences"] == []
    assert found["checked"]["weights"] == 8  # two folds of three networks and the clinical model


def test_patients_are_tabled_compared_and_not_tested_twice(place: Path) -> None:
    words = ("cohort", "table", "cohorts/phantom", "--csv", "patients.csv", "--json")
    table = json.loads(renalkit(*words, cwd=place).stdout)
    assert (place / "patients.csv").is_file()
    stored = json.loads((place / "runs/tiny/characteristics.json").read_text())
    assert stored["tables"] == [table]
    both = json.loads(
        renalkit("drift", "cohorts/phantom", "cohorts/phantom", "--json", cwd=place).stdout
    )
    assert all(row["p"] in (None, 1) for row in both["rows"])
    done = renalkit("external", "runs/tiny", "cohorts/phantom", cwd=place, expect=5)
    assert "16 patients and 16 studies are in both cohorts (L12)" in done.stderr


def test_other_settings_under_the_same_name_are_refused(place: Path) -> None:
    words = ("run", "tiny.toml", "-o", "runs", "--set", "train.epochs=3")
    assert "exists with other settings" in renalkit(*words, cwd=place, expect=6).stderr


def test_all_problems_of_an_experiment_come_at_once(place: Path) -> None:
    bad = EXPERIMENT.replace("epochs = 2", 'epochs = 0\noptimiser = "adam"').replace(
        'name = "unet"', 'name = "u-net"'
    )
    (place / "bad.toml").write_text(bad + "\n[inputs]\nsize = 3\n")
    text = renalkit("run", "bad.toml", "-o", "runs", cwd=place, expect=2).stderr
    assert "did you mean 'optimizer'?" in text
    assert "did you mean 'input'?" in text
    (place / "bad2.toml").write_text(bad.replace("epochs = 0\noptimiser", "optimizer"))
    text = renalkit("run", "bad2.toml", "-o", "runs", cwd=place, expect=2).stderr
    assert "systems.1.name" in text
    assert "nested-unet" in text


def test_evaluate_and_report_need_no_torch(
    place: Path, tmp_path: Path, without_torch: Callable[..., str]
) -> None:
    """A fresh process in which torch cannot be imported rebuilds the same figures."""
    shutil.copytree(place / "runs/tiny", tmp_path / "tiny")
    shutil.copytree(place / "cohorts", tmp_path / "cohorts")
    before = (tmp_path / "tiny/metrics.json").read_bytes()
    (tmp_path / "tiny/metrics.json").unlink()
    without_torch(
        "from pathlib import Path\n"
        "from renalkit.usecases.evaluate import evaluate_run\n"
        "from renalkit.usecases.report import write_report\n"
        "from renalkit.usecases.progress import Silent\n"
        "evaluate_run(Path('tiny'), Silent(), Path('cohorts/phantom'))\n"
        "write_report(Path('tiny'), Path('cohorts/phantom'), Silent())\n",
        cwd=tmp_path,
    )
    assert (tmp_path / "tiny/metrics.json").read_bytes() == before


def test_predict_one_image_a_folder_and_what_is_no_image(place: Path) -> None:
    images = sorted((place / "images/images").iterdir())
    words = ("predict", "runs/tiny/multitask-us", images[0], "-o", "out", "--json")
    found = json.loads(renalkit(*words, cwd=place).stdout)
    row = found["frames"][0]
    assert sum(row["scores"].values()) == pytest.approx(1)
    assert (place / "out" / row["mask"]).is_file()
    assert (place / "out" / row["overlay"]).is_file()
    mixed = place / "mixed"
    mixed.mkdir(exist_ok=True)
    shutil.copy(images[1], mixed / "a.png")
    (mixed / "note.txt").write_text("not an image")
    words = ("predict", "runs/tiny/unet/fold-0", "mixed", "-o", "out2", "--json")
    found = json.loads(renalkit(*words, cwd=place, expect=4).stdout)
    assert [r["file"] for r in found["frames"]] == ["a.png"]
    assert [r["file"] for r in found["refused"]] == ["note.txt"]
    assert "scores" not in found["frames"][0]


def test_predict_every_frame_of_a_cine_and_of_a_video(place: Path) -> None:
    """A blank frame is listed; the others of its cine are predicted all the same."""
    clips = place / "clips"
    clips.mkdir()
    videos.encoded(clips / "a.mp4", count=3)
    blank = np.zeros((dicom.ROWS, dicom.COLS), np.uint8)
    frames = [dicom.picture(seed=1), blank, dicom.picture(seed=2)]
    stack = {0x7FE00010: ("OB", b"".join(f.tobytes() for f in frames))}
    (clips / "b.dcm").write_bytes(dicom.part10(dicom.cine(3, stack)))
    (clips / "cut.mp4").write_bytes((clips / "a.mp4").read_bytes()[:300])
    words = ("predict", "runs/tiny/unet/fold-0", "clips", "-o", "out3", "--json")
    found = json.loads(renalkit(*words, cwd=place, expect=4).stdout)
    told = [(r["file"], r["frame"]) for r in found["frames"]]
    assert told == [("a.mp4", 0), ("a.mp4", 1), ("a.mp4", 2), ("b.dcm", 0), ("b.dcm", 2)]
    assert all((place / "out3" / r["overlay"]).is_file() for r in found["frames"])
    assert [(r["file"], r.get("frame"), r["reason"]) for r in found["refused"]] == [
        ("b.dcm", 1, "constant-image"),
        ("cut.mp4", None, "truncated"),
    ]


def test_predict_says_what_it_needs(place: Path) -> None:
    (place / "nothing").mkdir()
    whole = renalkit("predict", "runs/tiny", "images", "-o", "out4", cwd=place, expect=3)
    assert "RUN/SYSTEM with one of multitask-us, unet, resnet18" in whole.stderr
    words = ("predict", "runs/tiny/unet")
    assert "no file" in renalkit(*words, "nothing", "-o", "out4", cwd=place, expect=3).stderr
    inside = renalkit(*words, "images", "-o", "images/out", cwd=place, expect=2)
    assert "inside the folder that is read" in inside.stderr
    assert not (place / "out4").exists()
    assert not (place / "images/out").exists()


def test_damaged_weights_are_refused(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "runs", tmp_path / "runs")
    path = tmp_path / "runs/tiny/unet/fold-0/weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    image = next((place / "images/images").iterdir())
    words = ("predict", "runs/tiny/unet/fold-0", image, "-o", "out")
    renalkit(*words, cwd=tmp_path, expect=3)


def test_compare_varies_a_key_and_prints_paired_differences(place: Path) -> None:
    words = ("compare", "tiny.toml", "--vary", "params.cbam=true,false", "-o", "runs")
    done = renalkit(*words, "--set", "train.epochs=1", "--json", cwd=place)
    found = json.loads(done.stdout)
    assert [s["label"] for s in found["systems"]] == ["cbam=True", "cbam=False", "clinical"]
    assert found["reference"] == "cbam=True"
    measures = {r["metric"] for r in found["rows"]} - {"hd95", "assd"}
    assert measures == {"dice", "iou", "nsd", "recall", "auc", "accuracy"}


def test_splits_leave_in_the_form_of_nnunet(place: Path) -> None:
    renalkit("cohort", "export-splits", "runs/tiny", "-o", "splits_final.json", cwd=place)
    found = json.loads((place / "splits_final.json").read_text())
    assert [set(f) for f in found] == [{"train", "val"}] * 2
    assert not set(found[0]["train"]) & set(found[0]["val"])


def test_splits_of_nnunet_come_back_as_the_same_folds(place: Path) -> None:
    """Written by us, both files are there, so every part of every fold returns."""
    from renalkit.store.splits import load_split

    folder = place / "nnunet"
    folder.mkdir(exist_ok=True)
    renalkit("cohort", "export-splits", "runs/tiny", "-o", "nnunet/splits_final.json", cwd=place)
    words = ("--set", 'split.file="nnunet/splits_final.json"', "--set", "name=again")
    words += ("--set", "train.epochs=1", "--set", "systems.0.folds=[0]")
    renalkit("train", "tiny.toml", "-o", "runs", *words, cwd=place)
    one, two = (load_split(place / f"runs/{n}/folds.json") for n in ("tiny", "again"))
    parts = [[(f.train, f.validation, f.test) for f in s.folds] for s in (one, two)]
    assert parts[0] == parts[1]


def test_a_system_is_explained_by_the_networks_of_its_folds(place: Path) -> None:
    words = ("explain", "runs/tiny/resnet18", "-o", "seen", "--patients", 3, "--steps", 2, "--json")
    done = renalkit(*words, cwd=place)
    found = json.loads(done.stdout)
    assert found["cohort"]["n_patients"] == 3
    for row in found["frames"]:
        assert (place / "seen" / row["picture"]).is_file()
    assert "confidential" in (place / "seen" / "explain.html").read_text()
    refused = renalkit("explain", "runs/tiny/unet", "-o", "seen-unet", cwd=place, expect=3)
    assert "a system that only outlines" in refused.stderr
