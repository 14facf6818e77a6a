"""Each guard catches its planted leak and passes the clean twin; the null test does both too."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from renalkit.cohort_checks.findings import Severity
from renalkit.cohort_checks.guards import GUARD_IDS
from renalkit.cohort_checks.probes import null_test, out_of_fold, within_fold_auc
from renalkit.domain.cohort import Cohort
from renalkit.usecases.check import check


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("planted", Path(__file__).with_name("planted.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["planted"] = module
    spec.loader.exec_module(module)
    return module


planted = _load()


def alarms(cohort: Cohort, guard: str, links: tuple[tuple[str, str], ...] = ()) -> list[str]:
    report = check(cohort, links=links)
    return [
        f.words for f in report.findings if f.guard == guard and f.severity is not Severity.NOTE
    ]


@pytest.mark.parametrize("plant", planted.PLANTS, ids=lambda p: f"{p.guard} {p.name}")
def test_planted_leak_is_caught(plant) -> None:  # type: ignore[no-untyped-def]
    assert alarms(plant.planted(), plant.guard, plant.links)


@pytest.mark.parametrize("plant", planted.PLANTS, ids=lambda p: f"{p.guard} {p.name}")
def test_clean_twin_passes(plant) -> None:  # type: ignore[no-untyped-def]
    assert alarms(plant.clean(), plant.guard) == []


def test_the_table_covers_every_guard() -> None:
    counted = Counter(p.guard for p in planted.PLANTS)
    assert len(planted.PLANTS) == 34
    assert set(GUARD_IDS) == set(counted)


def test_contradicting_copies_block_and_agreeing_ones_share_a_group() -> None:
    contradicting = check(planted.with_copy(lambda x: x))
    assert contradicting.blocking
    agreeing = check(planted.with_copy(lambda x: x, "benign"))
    assert not agreeing.blocking
    copy, original = planted.key("p", str(planted.PATIENTS)), planted.key("p", "0")
    assert agreeing.groups[copy] == agreeing.groups[original]


def test_strangers_are_not_linked() -> None:
    # 300 pictures give 44,850 pairs in eight positions each.
    studies = [planted.study(i) for i in range(300)]
    groups = check(planted.cohort(studies)).groups
    assert len(set(groups.values())) == 300


def _analysis(*, leak: bool):  # type: ignore[no-untyped-def]
    """Cross-validated AUC of 10 out of 500 noise features, chosen with or without the tested."""
    features = np.random.default_rng(1).normal(size=(80, 500))
    fold = np.arange(80) % 5

    def strength(rows: np.ndarray, target: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return np.abs(
            features[rows][target[rows] == 1].mean(0) - features[rows][target[rows] == 0].mean(0)
        )

    def run(target: np.ndarray) -> float:  # type: ignore[type-arg]
        scores = np.zeros(80)
        for k in range(5):
            seen = np.ones(80, bool) if leak else fold != k
            best = np.argsort(-strength(seen, target))[:10]
            scores[fold == k] = out_of_fold(features[:, best], target.astype(float), fold)[
                fold == k
            ]
        return float(within_fold_auc(scores, target.astype(float), fold)[0])

    return run


@pytest.mark.parametrize("leak", [True, False])
def test_l16_null_test_catches_selection_on_tested_data(leak: bool) -> None:
    target = np.arange(80) // 5 % 2
    result = null_test(_analysis(leak=leak), target, [f"g{i}" for i in range(80)])
    assert len(result.aucs) == 20
    assert result.passed is not leak
