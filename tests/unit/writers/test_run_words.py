"""Sentences about a run: what each setting and record becomes, and silence where nothing is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from renalkit.writers import data_words, figure_words, training_words
from renalkit.writers.source import ReportSource

FLOW = {
    "screened_patients": 11,
    "screened_studies": 12,
    "included_patients": 10,
    "included_studies": 11,
    "included_images": 30,
    "excluded": [["no lesion", 1]],
}
TRAIN: dict[str, Any] = {
    "optimizer": "sgd",
    "momentum": 0.9,
    "lr": 0.01,
    "schedule": "cosine",
    "batch_size": 8,
    "epochs": 40,
    "patience": 5,
    "sampling": "plain",
    "class_weights": "inverse",
    "seed": 3,
    "monitor": "auc",
    "tta": True,
}
INPUT = {"size": 64, "bilateral": False, "clahe": True, "normalise": "zscore"}


def figure(value: float, method: str = "some method", **more: Any) -> dict[str, Any]:
    plain = {"value": value, "low": value - 0.1, "high": value + 0.1, "level": 0.95}
    return plain | {"n": 10, "unit": "patient", "method": method} | more


def system(label: str, **more: Any) -> dict[str, Any]:
    return {
        "label": label,
        "system": label,
        "task": "classification",
        "folds": [0, 1],
        "complete": True,
        "segmentation": None,
        "classification": None,
        "training": [{"fold": 0, "epochs": 40, "best_epoch": 30}],
        "complexity": {"parameters": 1000},
    } | more


def source(**more: Any) -> ReportSource:
    cohort = {
        "flow": FLOW,
        "classes": [{"label": "a", "patients": 4, "images": 12}],
        "scanners": [{"name": "unknown", "patients": 10, "images": 30}],
        "sites": [],
        "account": [],
    }
    metrics = {
        "cohort_digest": "c" * 64,
        "split_digest": "d" * 64,
        "task": {"classes": ["a", "b"], "positive": "b"},
        "cohort": cohort | more.pop("cohort", {}),
        "systems": more.pop("systems", [system("x")]),
        "statistics": None,
    } | more.pop("metrics", {})
    return ReportSource(name="run", metrics=metrics, **more)


def split(plan: str, folds: int = 2) -> dict[str, Any]:
    part = {"name": "", "train": 6, "validation": 2, "test": 2}
    return {"plan": plan, "seed": 7, "folds": [part] * folds}


# ---- nothing is known ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "say",
    [
        data_words.nameless,
        data_words.places,
        data_words.images,
        data_words.ingest,
        data_words.reference_standard,
        data_words.outlines,
        data_words.missing_values,
        data_words.reader_agreement,
        data_words.people,
        data_words.facts_known,
        data_words.subsets,
        training_words.partition,
        training_words.fewer_folds,
        training_words.part_sizes,
        training_words.disjointness,
        training_words.leak_check,
        training_words.internal_test,
        training_words.external_test,
        training_words.test_like_training,
        training_words.description,
        training_words.technical_detail,
        training_words.preprocessing,
        training_words.augmentation,
        training_words.initialisation,
        training_words.training,
        training_words.imbalance,
        training_words.selection,
        training_words.ensembling,
        training_words.output,
        figure_words.scoring,
        figure_words.classification_intervals,
        figure_words.segmentation_intervals,
        figure_words.level,
        figure_words.paired_tests,
        figure_words.patient_tests,
        figure_words.calibration,
        figure_words.subgroups,
        figure_words.between_places,
        figure_words.measures,
        figure_words.diagnostic,
        figure_words.explanations,
        figure_words.test_size,
        figure_words.performance,
        figure_words.failures,
    ],
    ids=lambda f: f.__name__,
)
def test_a_bare_run_says_nothing(say: Any) -> None:
    assert say(source()) == ""


# ---- data ----------------------------------------------------------------------------------


def test_flow_and_exclusions() -> None:
    assert data_words.study_flow(source()) == (
        "11 patients (12 studies) were screened and 10 (30 images) included. "
        "Excluded was 1 study: no lesion (1)."
    )
    none = source(cohort={"flow": FLOW | {"excluded": []}})
    assert data_words.exclusions(none) == "No study was excluded."


def test_places_tell_of_how_many_they_are_not_known() -> None:
    known = {"name": "A", "patients": 7, "images": 20}
    unknown = {"name": "unknown", "patients": 3, "images": 10}
    found = source(cohort={"sites": [known], "scanners": [known, unknown]})
    assert data_words.places(found) == (
        "Sources: one site (A); one scanner model (A), not recorded for 3 patients."
    )


def test_agreement_of_readings_is_told_by_group() -> None:
    group = {
        "group": "senior",
        "readers": ["r1", "r2"],
        "icc": [
            {"form": "ICC(1,1)", "estimate": figure(0.1)},
            {"form": "ICC(2,1)", "estimate": figure(0.8)},
        ],
        "kappa": figure(0.6),
    }
    silent = group | {"icc": [], "kappa": None}
    found = source(readers={"arms": [{"arm": "with AI", "groups": [group, silent]}]})
    assert data_words.reader_agreement(found) == (
        "Agreement of senior (2 readers), with AI: ICC(2,1) 0.800 (0.70–0.90) and "
        "Fleiss' kappa of votes 0.600 (0.50–0.70)."
    )


# ---- folds and training --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ("kfold", "every patient is tested once"),
        ("holdout", "one test part, the same in all folds"),
        ("leave-site-out", "each site is tested by models that never saw it"),
        ("external", "the external cohort is the test part of all folds"),
    ],
)
def test_plans(plan: str, words: str) -> None:
    found = source(split=split(plan), settings={"split": {"stratify": True, "file": None}})
    text = training_words.partition(found)
    assert words in text
    assert ("stratified" in text) == (plan != "external")
    assert text.endswith("Patients per fold: 6 in training, 2 in validation, 2 in test.")


def test_an_external_test_is_told_as_one() -> None:
    found = source(split=split("external"))
    assert training_words.is_external(found)
    assert training_words.internal_test(found) == ""
    assert "trained elsewhere" in training_words.external_test(found)
    assert "mean of the networks" in training_words.ensembling(found)
    assert training_words.goal(found) == "One trained system tested in another cohort."
    assert not any("no external test" in c for c in figure_words.cautions(found))


def test_systems_of_fewer_folds_are_named() -> None:
    few = [system("x"), system("y", folds=[0]), system("z", folds=[0])]
    found = source(systems=few, split=split("kfold"))
    assert training_words.fewer_folds(found) == "Not in every fold: y and z in one fold only."


def test_training_is_told_as_it_was_set() -> None:
    found = source(
        settings={
            "train": TRAIN,
            "input": INPUT,
            "systems": [{"name": "x", "label": None, "train": {"lr": 0.1}}],
        },
        split=split("kfold"),
    )
    text = training_words.training(found)
    assert "SGD, momentum 0.9, learning rate 0.01 (cosine), batches of 8" in text
    assert "drawn alike, and the loss was weighted by inverse frequency. Seed 3." in text
    assert "x differs: lr 0.1." in text
    assert "Epoch kept, of epochs trained, over folds: x 30 of 40." in text
    assert "best epoch by AUC" in training_words.selection(found)
    assert training_words.ensembling(found).endswith("over the image and its mirror image.")
    assert training_words.preprocessing(found) == (
        "Images were made grey (8 bit), equalised locally (CLAHE), fitted into 64 × 64 px with "
        "their proportions kept and scaled to their own mean and SD."
    )


def test_systems_of_other_sizes_and_weights_are_named() -> None:
    start = {"init_weights": "net.safetensors", "init_sha256": "ab" * 32}
    jobs: dict[str, dict[str, Any]] = {
        "x": {"input": {"size": 64}, "params": {}},
        "y": {"input": {"size": 128}, "params": start},
    }
    found = source(settings={"input": INPUT}, jobs=jobs)
    assert "64 × 64 px (x) and 128 × 128 px (y)" in training_words.preprocessing(found)
    assert training_words.initialisation(found) == (
        "The encoders of y started from weights in a local file (SHA-256 abababababab…); "
        "x started from random weights, drawn by the seed of training."
    )
    earlier = {"run": "p2", "label": "fused", "system": "mufnet-2022"}
    by_name = {
        "compared_by": "pseudonyms and pictures",
        "package": False,
        "folds_validated_again": 5,
    }
    jobs["y"]["initial"] = earlier | by_name
    jobs["x"]["initial"] = earlier | {
        "compared_by": "pictures only",
        "package": False,
        "folds_validated_again": 0,
    }
    assert training_words.initialisation(source(jobs=jobs)) == "; ".join(
        f"{label} started in each fold from a model of fused of the earlier run p2, class heads "
        "drawn anew, that was not trained with any patient the fold validates or tests, nor chosen "
        f"with any it tests{more}"
        for label, more in (
            (
                "x",
                " (patients were compared by their pictures, no pseudonym being in both cohorts)",
            ),
            (
                "y",
                "; in 5 folds patients validated who had validated that model too, so that the choice "
                "of the epoch saw them twice.",
            ),
        )
    )


def test_augmentation_tells_what_is_on() -> None:
    ranges: dict[str, Any] = {
        "probability": 0.5,
        "flip_probability": 0.5,
        "rotation_deg": 10,
        "scale": [0.9, 1.1],
        "translate": 0.1,
        "contrast": [0.8, 1.2],
        "brightness": 0.1,
        "gamma": [0.7, 1.4],
        "elastic_amplitude_px": 4.0,
        "noise_sd": 0.05,
    }
    text = training_words.augmentation(source(settings={"augment": ranges}))
    for words in ("gamma (0.7 to 1.4)", "up to 4 px", "noise of SD up to 0.05"):
        assert words in text
    off = ranges | {"probability": 0, "flip_probability": 0}
    assert (
        training_words.augmentation(source(settings={"augment": off})) == "Nothing was augmented."
    )


def test_the_clinical_model_is_told_apart() -> None:
    clinical = system("clinical", training=[], complexity=None)
    found = source(
        systems=[system("x"), clinical],
        settings={"train": TRAIN, "clinical": {"columns": ["size_mm", "sex"]}},
    )
    assert "clinical: ridge logistic regression" in training_words.systems(found)
    assert "facts about the patient: size mm and sex" in training_words.predictors(found)
    assert "median of the training" in data_words.missing_in_models(found)
    assert "penalty of the clinical model" in training_words.selection(found)


# ---- figures -------------------------------------------------------------------------------


def test_intervals_are_told_by_the_methods_that_the_figures_name() -> None:
    patient = {"n": 10, "auc": figure(0.8, "m1"), "accuracy": figure(0.7, "m2")}
    patient |= {"sensitivity": figure(0.6, "m2"), "confusion": [[5, 1], [2, 2]]}
    found = source(systems=[system("x", classification={"patient": patient})])
    assert figure_words.classification_intervals(found) == (
        "Intervals of figures per patient: AUC: m1; Accuracy and Sensitivity: m2."
    )
    assert figure_words.failures(found) == "x called 3 of 10 patients wrongly."
    assert figure_words.test_size(found) == "Tested: x: 10 patients, 4 b."
    assert "AUC 0.800 (95\u00a0% CI 0.70–0.90; n = 10 patients)" in figure_words.performance(found)


@pytest.mark.parametrize(
    ("holm", "words"),
    [(0.2, "p-values are adjusted (Holm)"), (None, "not adjusted for the number of comparisons")],
)
def test_adjustment_is_told_as_it_is_stored(holm: float | None, words: str) -> None:
    rows = [{"difference": figure(0.1, "paired way"), "p": 0.1, "p_holm": holm}]
    text = figure_words.paired_tests(source(comparisons={"reference": "x", "rows": rows}))
    assert "by paired way" in text
    assert words in text


def test_thresholds_tell_their_rule_with_its_numbers() -> None:
    rule = {"rule": "mean", "threshold": "sensitivity", "threshold_target": 0.95}
    patient = {"n": 10, "auc": figure(0.8)}
    found = source(
        systems=[system("x", classification={"patient": patient})], metrics={"statistics": rule}
    )
    assert "(rule 'sensitivity', threshold target 0.95)" in figure_words.scoring(found)
    several = replace(found, metrics={**found.metrics, "task": {"classes": ["a", "b", "c"]}})
    assert "Thresholds" not in figure_words.scoring(several)


def test_cautions_name_waivers_shortcuts_and_unfinished_folds() -> None:
    check = {
        "findings": [{"guard": "L03", "severity": "block", "waived": True}],
        "probes": [{"name": "margin", "alarming": True}],
    }
    found = figure_words.cautions(
        source(systems=[system("x", complete=False)], check=check, cohort={"patient_known": False})
    )
    text = " ".join(found)
    for words in ("names no patients", "Not every fold", "L03", "Shortcut", "no external test"):
        assert words in text
