"""A contrast cine goes the road of a cohort, and its patient that of the run's figures."""

from __future__ import annotations

import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from renalkit.domain.prediction import Prediction
from renalkit.errors import ConfigError
from renalkit.store.cohorts import load_cohort
from renalkit.store.files import read_json
from renalkit.usecases.ceus_cohort import ContrastOptions
from renalkit.usecases.ingest import request_of, run_ingest
from renalkit.usecases.models import Scored, scored
from renalkit.usecases.parts import samples_of
from renalkit.usecases.predict import predict_words, run_predict
from renalkit.usecases.predict_patients import patient_answer
from renalkit.usecases.progress import Silent
from renalkit.usecases.run_model import load_run_model

sys.path.insert(0, str(Path(__file__).parent))
from predicting import PLAIN, SETTINGS, THRESHOLDS, WAYS, contrast_run, contrast_study


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("predict")


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    return contrast_run(place / "runs")


@pytest.fixture(scope="module")
def study(place: Path) -> Path:
    return contrast_study(place / "study")


@pytest.fixture(scope="module")
def fused(run: Path, study: Path, place: Path) -> dict[str, Any]:
    options = replace(PLAIN, regions=study / "one.csv")
    model = load_run_model(run / "mufnet-2022")
    return run_predict(model, study / "dicom", place / "fused", options, Silent())


def predicted(model: Path, source: Path, output: Path, **options: Any) -> dict[str, Any]:
    return run_predict(load_run_model(model), source, output, replace(PLAIN, **options), Silent())


def test_a_cine_becomes_a_patient_with_score_threshold_and_weights(fused: dict[str, Any]) -> None:
    assert fused["refused"] == []
    (patient,) = fused["patients"]
    assert patient["files"] == ["P0001/ceus.dcm"]
    assert sum(patient["scores"].values()) == pytest.approx(1)
    assert patient["threshold"] == pytest.approx(np.median(THRESHOLDS))
    malignant = patient["scores"]["malignant"] >= patient["threshold"]
    assert patient["called"] == ("malignant" if malignant else "benign")
    assert patient["frames"] == len(fused["frames"]) >= 3
    assert set(patient["roi"]) <= {"reference", "propagated"}
    assert patient["modalities"] == {"B+CEUS": patient["frames"]}
    assert sum(patient["modality_weights"].values()) == pytest.approx(1)
    assert [m["fold"] for m in patient["members"]] == [0, 1]
    assert patient["before"] != patient["scores"]
    assert patient["notes"] == ["not known, as if never measured: age"]


def test_every_file_is_accounted_for_and_the_analysis_lies_beside(
    fused: dict[str, Any], place: Path
) -> None:
    (file,) = fused["files"]
    assert file["outcome"] in ("used", "used-with-warning")
    assert (place / "fused" / file["analysis"] / "analysis.json").is_file()
    stored = read_json(place / "fused" / "predictions.json")
    assert {n: stored[n] for n in stored if n != "ways"} == {
        n: fused[n] for n in fused if n != "ways"
    }
    assert "malignant" in predict_words(fused)


def test_scores_are_those_of_the_cohort_road(
    fused: dict[str, Any], run: Path, study: Path, place: Path
) -> None:
    """The same cine through `ceus cohort`, its samples scored one by one."""
    request = request_of(
        source=study / "dicom",
        output=place / "cohort",
        layout="dicom",
        labels=study / "labels.csv",
        annotations=study / "one.csv",
        classes="benign,malignant",
        contrast=ContrastOptions(SETTINGS),
    )
    run_ingest(request)
    samples = samples_of(load_cohort(place / "cohort"), "lesion")
    model = load_run_model(run / "mufnet-2022")
    said: list[list[Prediction]] = []
    for found in scored(model, samples):
        assert isinstance(found, Scored)
        said.append(model.predictions(found.sample, found.placement, found.decoded))
    wanted = patient_answer(model, [list(frames) for frames in zip(*said, strict=True)])
    (patient,) = fused["patients"]
    assert patient["frames"] == wanted["frames"]
    for name in ("scores", "before", "modality_weights"):
        assert patient[name] == pytest.approx(wanted[name], rel=1e-9)


def test_each_member_goes_the_way_of_its_own_fold(fused: dict[str, Any]) -> None:
    """Rule, correction and calibration of metrics.json, then the mean of the folds."""
    (patient,) = fused["patients"]
    mean = np.mean([[*m["scores"].values()] for m in patient["members"]], axis=0)
    assert [*patient["scores"].values()] == pytest.approx(mean.tolist())
    assert fused["ways"] == [way.as_json() for way in WAYS]
    assert fused["rule"].startswith("topk or mean of the frames, corrected")


def test_where_the_lesion_is_must_be_said(run: Path, study: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--regions.*--roi-model.*pairs\.csv"):
        predicted(run / "ceus-net", study / "dicom", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    other = tmp_path / "other.csv"
    head = "file,frame,lesion,x,y,width,height"
    other.write_text(f"{head}\nX/a.dcm,0,1,5,6,20,22\nY/a.dcm,0,1,5,6,20,22\n")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a").mkdir()
    (folder / "a" / "P9.dcm").write_bytes((study / "dicom/P0001/ceus.dcm").read_bytes())
    (folder / "b.txt").write_text("no picture")
    found = predicted(run / "ceus-net", folder, tmp_path / "out", regions=other)
    assert {r["file"] for r in found["refused"]} == {"a/P9.dcm", "b.txt"}
    assert "no outline of a lesion" in found["refused"][0]["words"]


class Middle:
    """Outlines a rectangle in the middle of every picture."""

    identity = ("made up",)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        mask = np.zeros(pixels.shape[:2], np.bool_)
        rows, cols = mask.shape
        mask[rows // 3 : rows // 2, cols // 3 : cols // 2] = True
        return mask


def test_a_zip_with_a_system_that_outlines(run: Path, study: Path, tmp_path: Path) -> None:
    packed = tmp_path / "study.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(study / "dicom/P0001/ceus.dcm", "one/ceus.dcm")
        archive.writestr("../outside.dcm", b"x")
    found = predicted(run / "ceus-net", packed, tmp_path / "out", outliner=Middle())
    (patient,) = found["patients"]
    assert patient["files"] == ["ceus.dcm"]
    assert patient["roi"] == {"predicted": patient["frames"]}
    (bad,) = found["refused"]
    assert bad["reason"] == "special-file"
    assert "outside.dcm" in bad["words"]
    assert not (tmp_path / "outside.dcm").exists()
