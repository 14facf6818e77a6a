"""Calibration and decision curves of systems, against figures counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.image import Clip, Mode, Source
from renalkit.domain.prediction import Prediction, SystemRef, Unit
from renalkit.domain.sample import b_mode_samples
from renalkit.domain.study import Lesion, Study
from renalkit.metrics.calibration import brier_score, recalibration
from renalkit.store.runs import RunFolder
from renalkit.usecases.experiment import Experiment, jobs_of
from renalkit.usecases.progress import Silent
from renalkit.usecases.results import RunResults, system_results
from renalkit.usecases.usefulness import usefulness_of

TWO = ("benign", "malignant")


def found(scores: list[tuple[float, ...]], truth: list[int], classes: tuple[str, ...] = TWO) -> Any:
    """The figures of one system that gave these scores, a frame per patient."""
    task = ClassTask(classes, classes[1] if len(classes) == 2 else None)
    studies = [
        Study(
            f"s-{n:020x}",
            f"p-{n:020x}",
            (
                Clip(
                    np.full((1, 8, 8), n, np.uint8),
                    f"{n:064x}",
                    Mode.B,
                    Source(f"{n:064x}", "f-0", "png"),
                ),
            ),
            (Lesion(f"l-{n:020x}", classes[t]),),
        )
        for n, t in enumerate(truth)
    ]
    cohort = Cohort("c", task, tuple(studies))
    experiment = Experiment.model_validate(
        {
            "name": "e",
            "cohort": "c",
            "systems": [{"name": "multitask-us"}],
            "statistics": {"bootstrap": 200},
        }
    )
    ref = SystemRef("multitask-us", "multitask-us", "0" * 64)
    given = {s.key: scores[i] for i, s in enumerate(studies)}
    samples = {s.key: s for s in b_mode_samples(cohort)}
    said = tuple(
        Prediction(Unit.FRAME, k, given[s.study.key], s.label, ref, 0) for k, s in samples.items()
    )
    (job,) = jobs_of(experiment)
    how = (experiment.statistics, task)
    system = system_results((job, (0,), said, ()), samples, how, Silent())
    (one,) = usefulness_of(RunResults(RunFolder(Path("none")), experiment, cohort, (system,)))[
        "systems"
    ]
    return one


def two(n: int = 40) -> tuple[list[tuple[float, ...]], list[int]]:
    rng = np.random.default_rng(2)
    chances = rng.uniform(0.05, 0.95, n)
    truth = (rng.uniform(size=n) < chances).astype(int)
    return [(1 - p, p) for p in chances.tolist()], truth.tolist()


def test_figures_are_those_of_patients_counted_directly() -> None:
    scores, truth = two()
    chances = np.array([s[1] for s in scores])
    one = found(scores, truth)
    calibration = one["calibration"]
    line = recalibration(np.array(truth), chances)
    assert calibration["slope"]["value"] == pytest.approx(line.slope.value)
    assert calibration["in_the_large"]["low"] == pytest.approx(line.in_the_large.low)
    assert calibration["brier"]["value"] == pytest.approx(brier_score(np.array(truth), chances))
    p = calibration["brier_parts"]
    whole = p["reliability"] - p["resolution"] + p["uncertainty"] + p["within_bins"]
    assert whole == pytest.approx(p["brier"])
    bins = calibration["reliability"]["bins"]
    assert sum(b["n"] for b in bins) == one["patients"] == 40
    half = next(d for d in one["decision"]["points"] if d["threshold"] == 0.5)
    called, positive = chances >= 0.5, np.array(truth) == 1
    benefit = ((called & positive).sum() - (called & ~positive).sum()) / 40
    assert half["net_benefit"]["value"] == pytest.approx(benefit)
    assert half["net_benefit"]["low"] <= benefit <= half["net_benefit"]["high"]
    avoided = 100 * ((~called & ~positive).sum() - (~called & positive).sum()) / 40
    assert half["avoided_per_100"]["value"] == pytest.approx(avoided)


def test_several_classes_have_the_top_label_and_no_decision_curve() -> None:
    rng = np.random.default_rng(1)
    scores = [tuple(s) for s in rng.dirichlet((1, 1, 1), 30).tolist()]
    one = found(scores, [k % 3 for k in range(30)], ("a", "b", "c"))
    right = sum(int(np.argmax(s)) == k % 3 for k, s in enumerate(scores))
    assert one["positive"] == right
    assert one["calibration"]["ece"]["value"] is not None
    assert "several classes" in one["decision"]["note"]


@pytest.mark.parametrize(
    ("n", "truth", "words"),
    [(6, None, "6 patients of known class, fewer than 10"), (20, 1, "one class only")],
)
def test_what_cannot_be_measured_has_its_reason(n: int, truth: int | None, words: str) -> None:
    scores, drawn = two(n)
    one = found(scores, drawn if truth is None else [truth] * n)
    assert words in one["note"]
    assert "calibration" not in one


def test_scores_that_separate_the_classes_have_no_slope_but_the_rest() -> None:
    scores = [(0.9, 0.1)] * 10 + [(0.2, 0.8)] * 10
    calibration = found(scores, [0] * 10 + [1] * 10)["calibration"]
    assert calibration["slope"]["value"] is None
    assert "separate" in calibration["slope"]["note"]
    assert calibration["brier"]["value"] == pytest.approx((0.1**2 + 0.2**2) / 2)
