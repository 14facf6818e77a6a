"""Diameter alone, and the logistic model, on 489 real renal tumours (KiTS23).

The AUCs of the axial diameter are published with the data: 0.739 for ISUP grade 3-4 against 1-2
(140 / 226), 0.745 for clear cell carcinomas only (123 / 185), 0.633 for malignant against benign
(439 / 43). The logistic model is fitted out of fold, its penalty chosen inside the training
patients; scikit-learn, given the same columns and penalty, must give the same probabilities.

    python validation/check_kits23_clinical.py [--data FOLDER] [--out FILE.json]

FOLDER holds kits23_labels/manifest.csv; default: the environment variable RENALKIT_DATA.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from pathlib import Path

import numpy as np
from side_by_side import Table, not_checked

from renalkit.domain.splits import PatientFacts, Plan, SplitOptions, make_split
from renalkit.metrics.auc_inference import delong, paired_delong
from renalkit.metrics.logistic import TrainingRows, design_of, fit_fact_model

NUMBERS = {"tumor_max_axial_mm": "size_mm", "age_at_nephrectomy": "age_years", "bmi": "bmi"}
MODELS = {"size": ("size_mm",), "size, age, sex, BMI": ("size_mm", "age_years", "sex", "bmi")}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def facts_of(row: dict[str, str]) -> dict[str, float | str]:
    found: dict[str, float | str] = {ours: float(row[n]) for n, ours in NUMBERS.items() if row[n]}
    return found | ({"sex": row["gender"]} if row["gender"] else {})


def questions(
    rows: list[dict[str, str]],
) -> dict[str, tuple[list[dict[str, str]], list[bool], float]]:
    """Rows, truth and the published AUC of each question."""
    graded = [r for r in rows if r["tumor_isup_grade"] in ("1", "2", "3", "4")]
    clear = [r for r in graded if r["tumor_histologic_subtype"] == "clear_cell_rcc"]
    known = [r for r in rows if r["malignant"] in ("True", "False")]
    high = [r["tumor_isup_grade"] in ("3", "4") for r in graded]
    return {
        "grade 3-4": (graded, high, 0.739),
        "grade 3-4, clear cell": (
            clear,
            [r["tumor_isup_grade"] in ("3", "4") for r in clear],
            0.745,
        ),
        "malignant": (known, [r["malignant"] == "True" for r in known], 0.633),
    }


def out_of_fold(
    rows: list[dict[str, str]], truth: np.ndarray, names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities by our model, and by scikit-learn with the same columns and penalty."""
    from sklearn.linear_model import LogisticRegression

    facts = [facts_of(r) for r in rows]
    people = [
        PatientFacts(r["case_id"], r["case_id"], str(t)) for r, t in zip(rows, truth, strict=True)
    ]
    place = {r["case_id"]: k for k, r in enumerate(rows)}
    ours, theirs = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    for fold in make_split(people, Plan.KFOLD, seed=0).folds:
        # As in a run: the validation part is not learnt from.
        train = sorted(place[p] for p in fold.train)
        test = sorted(place[p] for p in fold.test)
        inner = make_split([people[k] for k in train], Plan.KFOLD, 0, SplitOptions(folds=5))
        part = {p: f.index for f in inner.folds for p in f.test}
        parts = np.array([part[rows[k]["case_id"]] for k in train])
        given = [facts[k] for k in train]
        labels = truth[train].astype(np.intp)
        model = fit_fact_model(
            TrainingRows(given, labels, np.ones(len(train)), parts), names, n_classes=2
        )
        ours[test] = model.probabilities([facts[k] for k in test])[:, 1]
        other = LogisticRegression(C=1 / model.ridge, tol=1e-12, max_iter=10_000)
        other.fit(design_of(given, model.columns), labels)
        new = design_of([facts[k] for k in test], model.columns)
        theirs[test] = other.predict_proba(new)[:, 1]
    return ours, theirs


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=os.environ.get("RENALKIT_DATA"))
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    file = Path(given.data or ".") / "kits23_labels" / "manifest.csv"
    if not file.is_file():
        not_checked(f"{file} is not there", "--data FOLDER, or RENALKIT_DATA=FOLDER")
    table = Table("KiTS23: published AUCs of the diameter; scikit-learn's probabilities")
    found: dict[str, dict[str, object]] = {}
    for name, (rows, truth_list, published) in questions(rows_of(file)).items():
        truth = np.array(truth_list)
        size = np.array([float(r["tumor_max_axial_mm"]) for r in rows])
        alone = delong(truth, size)
        table.add(f"AUC of the diameter, {name}", published, alone.value, 0.0005 / published)
        one: dict[str, object] = {
            "positive": int(truth.sum()),
            "negative": int((~truth).sum()),
            "diameter alone": [alone.value, alone.low, alone.high],
        }
        for words, names in MODELS.items():
            ours, theirs = out_of_fold(rows, truth, names)
            table.add(f"probabilities, {name}, {words}", theirs, ours, 1e-6)
            model = delong(truth, ours)
            one[f"model of {words}, out of fold"] = [model.value, model.low, model.high]
            one[f"p, model of {words} against the diameter"] = paired_delong(
                truth, ours, size
            ).p_value
        found[name] = one
    text = json.dumps(found, indent=2) + "\n"
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    table.finish()


if __name__ == "__main__":
    main()
