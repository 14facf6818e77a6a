"""The logistic model beside the networks: same folds, training patients only, no forbidden facts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.image import Clip, Mode, Source
from renalkit.domain.profile import patient_classes
from renalkit.domain.splits import Plan, make_split, patient_facts
from renalkit.domain.study import Findings, Lesion, Outline, Study
from renalkit.errors import ConfigError
from renalkit.metrics.classification import auc
from renalkit.store.predictions import load_predictions
from renalkit.store.runs import RunFolder
from renalkit.store.splits import load_split, save_split
from renalkit.usecases.clinical_coefficients import write_coefficients
from renalkit.usecases.clinical_model import (
    clinical_columns,
    fit_clinical,
    stored_clinical_job,
)
from renalkit.usecases.experiment import Experiment, jobs_of
from renalkit.usecases.results import RunResults, SystemResults

TASK = ClassTask(("benign", "malignant"), "malignant")


def study(n: int, label: str, size: float | None) -> Study:
    """Two frames. Size tells the classes apart; the site names the class outright."""
    pixels = np.full((2, 20, 24), n % 250, np.uint8)
    clip = Clip(pixels, f"{n:064x}", Mode.B, Source(f"{n:064x}", "f-0", "png"))
    lesion = Lesion(
        f"l-{n:020x}",
        label,
        size_mm=size,
        histology="AML" if label == "benign" else "ccRCC",
        findings=Findings(shape=Outline.IRREGULAR if n % 3 else Outline.REGULAR),
    )
    facts = {"age_years": 50.0 + n % 20, "crp_mg_l": float(n % 7)}
    where = "H" + label
    return Study(f"s-{n:020x}", f"p-{n:020x}", (clip,), (lesion,), site=where, covariates=facts)


def cohort(n: int = 60) -> Cohort:
    rng = np.random.default_rng(0)
    studies: list[Study] = []
    for k in range(n):
        malignant = k % 2 == 1
        size = float(np.clip(rng.normal(45 if malignant else 25, 10), 5, 90))
        studies.append(study(k, TASK.classes[malignant], None if k % 11 == 5 else size))
    return Cohort("c", TASK, tuple(studies))


def experiment(**more: object) -> Experiment:
    given = {"name": "e", "cohort": "c", "systems": [{"name": "multitask-us"}]}
    return Experiment.model_validate(given | more)


def run(path: Path, found: Cohort) -> RunFolder:
    folder = RunFolder(path)
    save_split(folder.folds, make_split(patient_facts(found, {}), Plan.KFOLD, 1))
    return folder


def said_of(folder: RunFolder) -> dict[str, tuple[float, int]]:
    """Score of the positive class and truth, by patient."""
    folds = range(len(load_split(folder.folds).folds))
    found = [p for k in folds for p in load_predictions(folder.fold("clinical", k).test)]
    return {p.key.patient: ((p.scores or ())[1], p.target or 0) for p in found}


def test_every_patient_is_predicted_by_a_fold_that_did_not_train_on_him(tmp_path: Path) -> None:
    found = cohort()
    folder = run(tmp_path, found)
    assert fit_clinical(folder, experiment(), found)
    for fold in load_split(folder.folds).folds:
        own = folder.fold("clinical", fold.index)
        for part in ("validation", "test"):
            said = load_predictions(getattr(own, part))
            assert {p.key.patient for p in said} == getattr(fold, part)
            assert {p.fold for p in said} == {fold.index}
    said = said_of(folder)
    assert set(said) == set(found.patients)
    scores, truth = np.array(list(said.values())).T
    assert auc(truth, scores) > 0.85, "size tells these classes apart"
    job = stored_clinical_job(folder, experiment())
    assert job is not None
    assert job.params["columns"] == ["size_mm", "shape", "age_years"]
    model = json.loads((folder.fold("clinical", 0).model).read_text())
    names = [c["name"] for c in model["columns"]]
    assert names[0] == "size_mm"
    assert "size_mm unknown" in names
    assert model["classes"][0]["odds_ratios"][0] > 1.5


def test_L05_tested_and_validated_labels_and_facts_change_no_model(tmp_path: Path) -> None:
    found = cohort()
    one = run(tmp_path / "one", found)
    fit_clinical(one, experiment(), found)
    fold = load_split(one.folds).folds[0]
    outside = fold.test | fold.validation

    def turned(s: Study) -> Study:
        if s.patient not in outside:
            return s
        (lesion,) = s.lesions
        other = {"benign": "malignant", "malignant": "benign"}[str(lesion.label)]
        return replace(s, lesions=(replace(lesion, label=other, size_mm=500.0),))

    changed = Cohort("c", TASK, tuple(turned(s) for s in found.studies))
    two = RunFolder(tmp_path / "two")
    save_split(two.folds, load_split(one.folds))
    fit_clinical(two, experiment(), changed)
    for folder in (one, two):
        assert (folder.fold("clinical", 0).model).exists()
    models = [(f.fold("clinical", 0).model).read_bytes() for f in (one, two)]
    assert models[0] == models[1]


def test_a_finished_fold_is_kept_and_other_columns_are_fitted_anew(tmp_path: Path) -> None:
    found = cohort()
    folder = run(tmp_path, found)
    fit_clinical(folder, experiment(), found)
    done = folder.fold("clinical", 0).done
    before = (done.stat().st_mtime_ns, done.read_bytes())
    fit_clinical(folder, experiment(), found)
    assert (done.stat().st_mtime_ns, done.read_bytes()) == before
    fit_clinical(folder, experiment(clinical={"columns": ["crp_mg_l"]}), found)
    assert done.read_bytes() != before[1]
    scores, truth = np.array(list(said_of(folder).values())).T
    assert auc(truth, scores) < 0.75, "this fact says nothing"


def test_what_may_be_named() -> None:
    found = cohort()
    assert clinical_columns(found, ()) == ()
    assert clinical_columns(found, ("crp_mg_l", "size_mm")) == ("crp_mg_l", "size_mm")
    with pytest.raises(ConfigError) as refused:
        clinical_columns(found, ("histology", "site", "weight_kg"))
    words = str(refused.value)
    assert "'histology' is known only with the diagnosis" in words
    assert "'site' says where a patient was examined" in words
    assert "no fact 'weight_kg' in this cohort; there are: age_years, crp_mg_l, size_mm" in words


def test_facts_few_patients_have_are_not_taken_unasked() -> None:
    found = cohort(20)
    few = tuple(
        replace(s, lesions=(replace(s.lesions[0], size_mm=None),)) if k > 8 else s
        for k, s in enumerate(found.studies)
    )
    assert "size_mm" not in clinical_columns(Cohort("c", TASK, few), None)


def test_a_class_without_lesions_would_be_given_away_by_their_facts() -> None:
    task = ClassTask(("benign", "malignant", "normal"))
    healthy = tuple(
        replace(study(100 + k, "benign", None), lesions=(), label="normal") for k in range(5)
    )
    found = Cohort("c", task, (*cohort(20).studies, *healthy))
    assert clinical_columns(found, None) == ("age_years",)
    with pytest.raises(ConfigError, match="'size_mm' is of lesions, and class 'normal' has none"):
        clinical_columns(found, ("size_mm",))


def test_no_facts_or_another_cohort_give_no_model(tmp_path: Path) -> None:
    found = cohort()
    folder = run(tmp_path, found)
    assert not fit_clinical(folder, experiment(clinical={"columns": []}), found)
    half = Cohort("c", TASK, found.studies[:30])
    assert not fit_clinical(folder, experiment(), half)
    assert stored_clinical_job(folder, experiment()) is None


def test_several_lesions_of_a_patient_count_as_one_patient(tmp_path: Path) -> None:
    found = cohort()
    (lesion,) = found.studies[0].lesions
    more = tuple(replace(lesion, key=f"l-{900 + k:020x}") for k in range(3))
    first = replace(found.studies[0], lesions=(lesion, *more))
    both = Cohort("c", TASK, (first, *found.studies[1:]))
    folder = run(tmp_path, both)
    assert fit_clinical(folder, experiment(), both)
    assert set(said_of(folder)) == set(patient_classes(both))


def test_the_label_is_taken_and_old_digests_stay() -> None:
    wrong = experiment(systems=[{"name": "multitask-us", "label": "clinical"}])
    with pytest.raises(ConfigError, match="'clinical' is the label of the logistic model"):
        jobs_of(wrong)
    assert "clinical" not in experiment().plain
    assert experiment().digest != experiment(clinical={"columns": []}).digest
    kept = experiment(clinical={"columns": ["sex"]})
    assert Experiment.model_validate(kept.plain) == kept


def described(path: Path, found: Cohort, **more: object) -> dict[str, Any]:
    """The coefficients of the clinical model of a run."""
    folder, asked = run(path, found), experiment(statistics={"bootstrap": 200}, **more)
    assert fit_clinical(folder, asked, found)
    job = stored_clinical_job(folder, asked)
    assert job is not None
    system = SystemResults(job, (), (), (), (), (), ())
    coefficients = write_coefficients(RunResults(folder, asked, found, (system,)))
    assert coefficients is not None
    assert json.loads(folder.coefficients.read_text()) == coefficients
    return coefficients


def test_the_model_is_described_by_odds_ratios_per_unit(tmp_path: Path) -> None:
    coefficients = described(tmp_path, cohort())
    assert coefficients["patients"] == coefficients["rows"] == 60
    assert coefficients["chosen"], "the penalty comes from inner cross-validation"
    (only,) = coefficients["classes"]
    assert only["class"] == "malignant"
    assert only["events"] == 30
    assert only["events_per_variable"] == pytest.approx(30 / len(only["facts"]))
    assert not only["separated"]
    facts = {(f["fact"], f["level"], f["unknown"]): f for f in only["facts"]}
    size = facts["size_mm", None, False]["odds_ratio"]
    assert 1.02 < size["value"] < 1.3, "per millimetre"
    assert 1 < size["low"] < size["value"] < size["high"]
    assert size["n"] == 60
    assert "200 resamples" in size["method"]
    shape = facts["shape", "regular", False]
    assert shape["against"] == "irregular", "the most frequent one"
    assert shape["odds_ratio"]["low"] < 1 < shape["odds_ratio"]["high"]
    assert facts["size_mm", None, True]["against"] is None


def test_facts_that_separate_the_classes_are_said_to(tmp_path: Path) -> None:
    apart = tuple(
        replace(s, lesions=(replace(s.lesions[0], size_mm=60.0 + k if k % 2 else 20.0 - k / 10),))
        for k, s in enumerate(cohort().studies)
    )
    (only,) = described(tmp_path, Cohort("c", TASK, apart), clinical={"columns": ["size_mm"]})[
        "classes"
    ]
    assert only["separated"]
    (size,) = only["facts"]
    assert np.isfinite(size["odds_ratio"]["value"])


def test_each_of_several_classes_is_described_against_the_rest(tmp_path: Path) -> None:
    task = ClassTask(("benign", "malignant", "borderline"))
    turned = tuple(
        replace(s, lesions=(replace(s.lesions[0], label="borderline"),)) if k % 3 == 0 else s
        for k, s in enumerate(cohort().studies)
    )
    found = described(tmp_path, Cohort("c", task, turned))
    assert [c["class"] for c in found["classes"]] == list(task.classes)
    assert [c["events"] for c in found["classes"]] == [20, 20, 20]
