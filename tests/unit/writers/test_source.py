"""What a report knows of a run: names of folds, places of systems."""

from __future__ import annotations

import pytest

from renalkit.writers.source import ReportSource, measured


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["", ""], ["0", "1"]),
        (["scanner-a", "scanner-b"], ["scanner-a", "scanner-b"]),
        (["external", "external"], ["0", "1"]),
        ([], ["0", "1"]),
    ],
)
def test_folds_are_named_after_what_each_alone_tests(names: list[str], words: list[str]) -> None:
    split = {"folds": [{"name": name} for name in names]}
    source = ReportSource("run", {"systems": []}, split=split)
    assert [source.fold_words(k) for k in (0, 1)] == words


def test_places_follow_the_systems_of_the_run_and_strangers_come_last() -> None:
    source = ReportSource("run", {"systems": [{"label": "b"}, {"label": "a"}]})
    assert [source.place(label) for label in ("b", "a", "c")] == [0, 1, 2]


def test_a_mean_over_images_is_not_called_a_mean_over_patients() -> None:
    dice = {"value": 0.7, "low": 0.6, "high": 0.8, "level": 0.95, "n": 9, "method": "bootstrap"}
    auc = {**dice, "unit": "patient"}
    system = {
        "segmentation": {"pooled": {"dice": {**dice, "unit": "patient"}}},
        "classification": {"patient": {"auc": auc}},
    }
    of_dice, of_auc = measured(system, "dice"), measured(system, "auc")
    assert of_dice is not None
    assert of_dice.unit == "patient, mean over images"
    assert of_auc is not None
    assert of_auc.unit == "patient"
