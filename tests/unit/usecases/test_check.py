"""The check reports, blocks, and is waived by name only; its groups feed the splits."""

from __future__ import annotations

import hashlib
import json

import cv2
import numpy as np
import pytest

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.splits import Plan, SplitOptions, make_split, patient_facts
from renalkit.domain.study import Lesion, Study
from renalkit.errors import CheckFailed, ConfigError
from renalkit.usecases.check import CheckReport, check


def key(prefix: str, name: str) -> str:
    return f"{prefix}-{hashlib.sha256(name.encode()).hexdigest()[:20]}"


def study(name: str, seed: int, label: str) -> Study:
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.normal(size=(80, 90)).astype(np.float32), (0, 0), 1.5)
    pixels = np.clip(120 + 45 * image / image.std(), 12, 235).astype(np.uint8)[None]
    clip = Clip(pixels, pixel_sha256(pixels), Mode.B, Source("0" * 64, "0" * 16, "still"))
    return Study(key("s", name), key("p", name), (clip,), (Lesion(key("l", name), label),))


def cohort(*extra: Study, n: int = 24) -> Cohort:
    studies = [study(str(i), i, ("benign", "malignant")[i % 2]) for i in range(n)]
    task = ClassTask(("benign", "malignant"), "malignant")
    return Cohort("small", task, (*studies, *extra))


def contradicting() -> Cohort:
    return cohort(study("copy", 0, "malignant"))


def test_a_contradiction_blocks_until_its_guard_is_waived() -> None:
    report = check(contradicting())
    assert report.blocking
    with pytest.raises(CheckFailed, match="block training .*L02"):
        report.require_clear()
    waived = check(contradicting(), frozenset({"L02"}))
    assert not waived.blocking
    waived.require_clear()
    assert "waived" in waived.to_table()
    assert [f["waived"] for f in waived.to_json()["findings"] if f["guard"] == "L02"] == [True]


def test_waiving_another_guard_does_not_help() -> None:
    assert check(contradicting(), frozenset({"L03"})).blocking


def test_an_unknown_waiver_is_refused() -> None:
    with pytest.raises(ConfigError, match="'L99' is no guard; known: L01"):
        check(cohort(), frozenset({"L99"}))


def test_a_link_to_a_stranger_is_refused() -> None:
    with pytest.raises(ValueError, match="links name 1 patients"):
        check(cohort(), links=((key("p", "0"), key("p", "nobody")),))


def test_report_is_plain_json_without_nan_and_the_same_every_time() -> None:
    first, again = (json.dumps(check(contradicting()).to_json(), allow_nan=False) for _ in "ab")
    assert first == again


def test_groups_reach_the_splits() -> None:
    both = contradicting()
    facts = patient_facts(both, check(both).groups)
    for seed in range(5):
        split = make_split(facts, Plan.KFOLD, seed, SplitOptions(folds=4))
        for fold in split.folds:
            assert fold.part_of(key("p", "copy")) == fold.part_of(key("p", "0"))


def test_patient_facts_name_the_positive_class_and_one_place_only() -> None:
    two = study("0", 99, "malignant")
    object.__setattr__(two, "key", key("s", "second"))
    object.__setattr__(two, "site", "A")
    facts = {f.patient: f for f in patient_facts(cohort(two), {})}
    assert facts[key("p", "0")].stratum == "malignant"
    assert facts[key("p", "0")].site is None
    assert facts[key("p", "2")].stratum == "benign"
    assert facts[key("p", "2")].group == key("p", "2")


def test_a_cohort_too_small_to_probe_says_so() -> None:
    report = check(cohort(n=4))
    assert report.probes == ()
    assert any("not probed" in f.words for f in report.findings)
    assert not report.blocking


def test_an_empty_report_reads_well() -> None:
    text = CheckReport((), (), {}).to_table()
    assert "nothing found" in text
    assert text.endswith("does not block training")
