"""Planned studies: sizes of the metrics, power at the sizes found, refusals in words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from renalkit.cli import app
from renalkit.errors import ConfigError, StatisticUndefined
from renalkit.metrics.sample_size import (
    AucDesign,
    AucPair,
    auc_correlation,
    n_for_auc,
    n_for_difference,
    n_for_non_inferiority,
    n_for_width,
)
from renalkit.usecases.plan import PlanRequest, plan_study, plan_words

DESIGN = AucDesign(negatives_per_positive=1.5)
PAIR = AucPair(0.85, 0.78, 0.5)


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"width": 0.05}, n_for_width(0.85, 0.05, DESIGN)),
        ({"null": 0.7}, n_for_auc(0.85, 0.7, DESIGN)),
        ({"against": 0.78, "correlation": 0.5}, n_for_difference(PAIR, DESIGN)),
        ({"against": 0.78}, n_for_difference(AucPair(0.85, 0.78, 0), DESIGN)),
        (
            {"against": 0.85, "margin": 0.05, "score_correlation": 0.6},
            n_for_non_inferiority(
                AucPair(0.85, 0.85, auc_correlation((0.85, 0.85), 0.6, 0.6, 1.5)), 0.05, DESIGN
            ),
        ),
    ],
)
def test_sizes_are_those_of_the_metrics(asked: dict[str, Any], size: Any) -> None:
    request = PlanRequest(auc=0.85, positive_share=0.4, **asked)
    found = plan_study(request)
    json.dumps(found, allow_nan=False)
    assert (found["n_positive"], found["n_negative"]) == (size.n_positive, size.n_negative)
    assert (found["n"], found["reached"], found["unit"]) == (size.n, size.reached, "patient")
    assert f"{size.n:,} patients" in plan_words(found)
    assert ("each of two groups" in plan_words(found)) is (asked == {"against": 0.78})
    there = plan_study(PlanRequest(auc=0.85, positive_share=0.4, patients=size.n, **asked))
    assert there["reached"] == pytest.approx(size.reached, abs=0.005)
    assert there["reached_is"] == ("half width" if "width" in asked else "power")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "one of --width, --null and --against"),
        ({"width": 0.05, "null": 0.5}, "one of --width"),
        ({"null": 0.5, "margin": 0.1}, "--margin: needs --against"),
        ({"null": 0.5, "correlation": 0.1}, "--correlation: needs --against"),
        ({"against": 0.7, "correlation": 0.1, "score_correlation": 0.2}, "one of them"),
        ({"null": 0.5, "positive_share": 1}, "--positive-share"),
        ({"null": 0.5, "model": "best"}, "--model 'best'"),
        ({"null": 1.5}, "AUC 1.5"),
        ({"against": 0.7, "correlation": 1}, "correlation 1"),
        ({"null": 0.5, "patients": 4, "positive_share": 0.1}, "too few"),
    ],
)
def test_plans_without_meaning_are_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan_study(PlanRequest(auc=0.8, **asked))


def test_no_number_of_patients_shows_what_is_not_there() -> None:
    with pytest.raises(StatisticUndefined, match="no difference to find"):
        plan_study(PlanRequest(auc=0.8, against=0.8))
    with pytest.raises(StatisticUndefined, match="no difference to find"):
        plan_study(PlanRequest(auc=0.7, against=0.8, margin=0.05))


def test_the_command_gives_json_and_words() -> None:
    words = ["plan", "--auc", "0.85", "--against", "0.78", "--correlation", "0.5"]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert CliRunner().invoke(app, words).stdout.strip() == plan_words(found)
