"""Figures of ordered classes in metrics.json and the report, beside scikit-learn."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from renalkit.domain.prediction import Unit
from renalkit.metrics.bootstrap import BootstrapPlan
from renalkit.store.files import read_json
from renalkit.store.runs import RunFolder, write_manifest
from renalkit.usecases.ordinal_figures import ordinal_figures
from renalkit.usecases.progress import Silent
from renalkit.usecases.report import write_report
from renalkit.usecases.verify import verify_run

GRADES = ("G1", "G2", "G3", "G4")
PLAN = BootstrapPlan(n_boot=300)


def drawn(n: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 4, n)
    scores = rng.dirichlet(np.ones(4), n) + 0.5 * np.eye(4)[truth]
    scores /= scores.sum(axis=1, keepdims=True)
    return truth.astype(np.intp), scores.argmax(axis=1).astype(np.intp), scores


@pytest.mark.parametrize("unit", [Unit.PATIENT, Unit.FRAME])
def test_figures_are_those_of_scikit_learn(unit: Unit) -> None:
    truth, called, scores = drawn()
    groups = [f"p{k if unit is Unit.PATIENT else k // 3}" for k in range(120)]
    found = ordinal_figures((truth, called, scores), groups, GRADES, PLAN, unit)
    kappa = cohen_kappa_score(truth, called, weights="quadratic")
    assert found["kappa_quadratic"]["value"] == pytest.approx(kappa)
    assert found["grade_error"]["value"] == pytest.approx(np.abs(truth - called).mean())
    above = np.cumsum(scores[:, ::-1], axis=1)[:, ::-1]
    areas = [roc_auc_score(truth >= g, above[:, g]) for g in (1, 2, 3)]
    assert [c["auc"]["value"] for c in found["cuts"]] == pytest.approx(areas)
    assert [c["cut"] for c in found["cuts"]] == ["G2 or above", "G3 or above", "G4 or above"]
    assert found["cut_auc"]["value"] == pytest.approx(np.mean(areas))
    n = 120 if unit is Unit.PATIENT else 40
    for name in ("kappa_quadratic", "grade_error", "rps", "cut_auc"):
        one = found[name]
        assert one["low"] < one["value"] < one["high"], name
        assert (one["n"], one["unit"]) == (n, "patient")


def test_a_grade_nobody_has_leaves_a_reason() -> None:
    truth, called, scores = drawn()
    kept = truth > 0
    data = (truth[kept], called[kept], scores[kept])
    groups = [f"p{k}" for k in range(int(kept.sum()))]
    found = ordinal_figures(data, groups, GRADES, PLAN, Unit.PATIENT)
    assert found["cut_auc"]["note"] == "a cut has no case on one side"
    assert found["cuts"][0]["auc"]["value"] is None
    assert found["cuts"][0]["auc"]["note"]
    assert found["cuts"][2]["auc"]["value"] is not None
    assert found["kappa_quadratic"]["value"] is not None


def test_an_ordered_run_is_stored_reported_and_verified(
    tmp_path: Path, made_run: ModuleType
) -> None:
    classes = ("normal", "benign", "malignant")
    asked = ('calibration = "temperature"',)
    made = made_run.make_run(
        tmp_path, n_patients=21, size=32, classes=classes, ordered=True, statistics=asked
    )
    write_manifest(made.run)
    assert verify_run(made.run, Silent())["differences"] == []
    metrics = read_json(RunFolder(made.run).metrics)
    assert metrics["task"] == {"classes": list(classes), "positive": None, "ordered": True}
    system = next(s for s in metrics["systems"] if s["label"] == "resnet18")
    patient = system["classification"]["patient"]
    assert patient["macro"] is True
    matrix = np.array(patient["confusion"])
    apart = np.abs(np.arange(3)[:, None] - np.arange(3))
    assert patient["ordinal"]["grade_error"]["value"] == pytest.approx(
        (matrix * apart).sum() / matrix.sum()
    )
    means = system["classification"]["fold_mean"]
    assert {"kappa_quadratic", "grade_error", "rps"} < set(means)
    rows = read_json(RunFolder(made.run).comparisons)["rows"]
    own = {r["metric"]: r for r in rows if r["label"] == "resnet18"}
    assert (own["grade_error"]["better"], own["kappa_quadratic"]["better"]) == ("lower", "higher")
    for name in ("kappa_quadratic", "grade_error", "rps"):
        row, known = own[name], patient["ordinal"][name]["value"]
        assert row["value"] == pytest.approx(known)
        apart = row["reference_value"] - known
        assert row["difference"]["value"] == pytest.approx(apart)
        assert row["over_folds"]["folds"]
    html = write_report(made.run, None, Silent()).read_text(encoding="utf-8")
    words = " ".join(re.sub(r"<[^>]*>", " ", html).split())
    for text in ("Ordered classes per patient", "Each cut of the order per patient"):
        assert text in words
    assert "malignant or above" in words
    assert "of distances and errors below 0" in words
    assert "Classes are ordered." in words
