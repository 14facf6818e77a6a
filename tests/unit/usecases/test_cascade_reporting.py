"""Checklists and model card of a run with CT scans: the same forms, its own words, open where the
run knows nothing."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from renalkit.errors import ConfigError, ModelRefused
from renalkit.store.runs import RunFolder
from renalkit.usecases import model_card
from renalkit.usecases.cascade_evaluate import evaluate_scans
from renalkit.usecases.checklists import ChecklistRequest, fill_checklists
from renalkit.usecases.model_card import CardRequest, card_words, write_card
from renalkit.usecases.progress import Silent
from renalkit.usecases.report import read_source, write_report
from renalkit.writers import scan_words
from renalkit.writers.checklist import State, filled
from renalkit.writers.checklists_section import FORMS
from renalkit.writers.source import ReportSource

sys.path.insert(0, str(Path(__file__).parent))
from scanning import PLAN, ct_cohort, scan_run


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("reporting")
    cohort = ct_cohort(4, replace(PLAN, matrix=64), normal=1)
    run = scan_run(base, cohort, (("ct-cascade", 0.3), ("other", None)))
    evaluate_scans(run.path, Silent())
    return run.path


@pytest.fixture
def run(original: Path, tmp_path: Path) -> RunFolder:
    shutil.copytree(original.parents[1], tmp_path / "work")
    return RunFolder(tmp_path / "work" / original.parent.name / original.name)


@pytest.fixture(scope="module")
def source(original: Path) -> ReportSource:
    return read_source(RunFolder(original), None, pictures=False)


def said(form: str, source: ReportSource) -> dict[str, str]:
    return {line.item.number: line.from_run for line in filled(FORMS[form], source)}


def sentences(answer: Callable[..., object]) -> list[Callable[..., object]]:
    """The sentence functions an item was made from."""
    found: list[Callable[..., object]] = []
    for cell in answer.__closure__ or ():
        value = cell.cell_contents
        found += value if isinstance(value, tuple) else ()
    return found


def test_every_sentence_of_forms_and_card_is_known_for_scans() -> None:
    """A new sentence must be told apart or declared the same, or a run could say what is untrue."""
    used = [s for form in FORMS.values() for item in form.items for s in sentences(item.answer)]
    used += [
        s
        for group in (model_card._MODEL, model_card._DATA, model_card._TRAINING)
        for s in (*group, *model_card._FIGURES)
    ]
    assert len(set(used)) > 50
    assert set(used) <= {*scan_words.FOR_SCANS, *scan_words.SHARED}
    assert not set(scan_words.FOR_SCANS) & set(scan_words.SHARED)


def test_the_run_answers_what_it_knows(source: ReportSource) -> None:
    states = {line.item.number: line.state for line in filled(FORMS["claim"], source)}
    for number in ("9", "19", "20", "22", "24", "25", "26", "27", "28", "29", "35", "37", "38"):
        assert states[number] is State.RUN, number
    for number in ("6", "8", "10", "11", "13", "16", "21", "33", "39", "40", "42"):
        assert states[number] is State.PARTLY, number
    for number in ("3", "4", "5", "14", "15", "18", "30", "31", "34", "44"):
        assert states[number] is State.OPEN, number


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_said_of_pictures_or_other_systems(form: str, source: ReportSource) -> None:
    words = " ".join(said(form, source).values())
    words = words.replace(source.cards["ct-cascade"]["reference"].rstrip("."), "")
    assert not re.search(r"B-mode|\bimages?\b|\bpictures?\b|\bpx\b|AUC|epochs?\b", words)
    assert "None" not in words
    assert "nan" not in words.lower().split()


def test_answers_are_figures_and_settings_of_the_run(source: ReportSource) -> None:
    found = said("claim", source)
    lesions = source.metrics["systems"][0]["lesions"]["criteria"]["IoU 0.1"]
    assert f"lesions found {lesions['recall']['value']:.3f}" in found["37"]
    assert "5 3-D U-Nets for masses" in found["22"]
    assert "two networks of the first stage found which had never seen the patient" in found["25"]
    assert "Dice of kidneys, Dice of masses and log-likelihood" in found["26"]
    assert "nephrographic (4)" in found["13"]
    assert "who drew them is not recorded" in found["16"]


def test_stages_that_were_not_trained_are_not_told(source: ReportSource) -> None:
    settings = dict(source.settings) | {"stages": ["kidney"]}
    first = replace(source, settings=settings)
    found = said("claim", first)
    assert "3-D ResNet" not in found["22"].partition("networks of a fold")[2].partition(".")[0]
    assert "Masses were learnt" not in found["25"]
    assert "most probable class" not in found["28"]
    assert any("Only these stages" in words for words in scan_words.cautions(first))


def test_what_the_run_does_not_hold_is_not_said(source: ReportSource) -> None:
    bare = replace(source, settings={}, settings_digest="", split={}, cards={}, comparisons=None)
    states = {line.item.number: line.state for line in filled(FORMS["claim"], bare)}
    for number in ("9", "19", "24", "25", "26", "27", "42"):
        assert states[number] is State.OPEN, number


def test_the_checklist_command_and_the_report(run: RunFolder) -> None:
    found = fill_checklists(ChecklistRequest(run.path, output=run.path / "list.md"))
    assert [len(form["items"]) for form in found["forms"]] == [44, 52]
    assert found["made"]
    assert "Which part of the data was taken" in (run.path / "list.md").read_text()
    page = write_report(run.path, None, Silent()).read_text()
    assert "Reporting checklists" in page
    assert "who drew them is not recorded" in page


def test_no_card_without_words_of_the_authors(run: RunFolder) -> None:
    with pytest.raises(ConfigError, match=r"card\.intended_use"):
        write_card(CardRequest(run.path))


@pytest.mark.parametrize("suffix", ["json", "md", "html"])
def test_the_card(run: RunFolder, suffix: str) -> None:
    run.reporting.write_text('[card]\nintended_use = "Teaching."\nlimitations = "Phantoms."\n')
    output = run.path / f"card.{suffix}"
    made = write_card(CardRequest(run.path, None, output))
    card = made["card"]
    assert card["model"]["label"] == "ct-cascade"
    assert card["model"]["parameters"] is None  # counted nowhere in the run
    assert card["model"]["params"]["mass"]["members"] == 5
    assert card["performance"]["classification"] is None
    criteria = card["performance"]["lesions"]["criteria"]
    assert all("froc" not in one for one in criteria.values())
    assert any("no external test" in words for words in card["cautions"])
    assert "Teaching" in output.read_text()
    if suffix == "json":
        assert json.loads(output.read_text()) == card
    else:
        assert "mass.members" in output.read_text().replace("\\", "")
        assert "Lesions found" in output.read_text()
        assert "Epochs" not in output.read_text()
    assert "Card of ct-cascade" in card_words(made)


def test_a_rule_that_learns_nothing_has_no_card(run: RunFolder) -> None:
    run.reporting.write_text('[card]\nintended_use = "Teaching."\nlimitations = "Phantoms."\n')
    metrics = json.loads(run.metrics.read_text())
    metrics["systems"][1] |= {"label": "hu-threshold", "system": "hu-threshold"}
    run.metrics.write_text(json.dumps(metrics))
    with pytest.raises(ModelRefused, match="learns nothing"):
        write_card(CardRequest(run.path, "hu-threshold"))
    source = read_source(run, None, pictures=False)
    assert "beside it hu-threshold" in said("claim", source)["22"]
    assert (
        "One system trained and tested on CT scans, beside one other." in said("claim", source)["6"]
    )


def test_a_run_without_tested_scans_has_open_figures_and_no_card(run: RunFolder) -> None:
    run.reporting.write_text('[card]\nintended_use = "Teaching."\nlimitations = "Phantoms."\n')
    metrics = json.loads(run.metrics.read_text())
    none = {"scans": 0, "patients": 0, "segmentation": None, "lesions": None, "coverage": None}
    for system in metrics["systems"]:
        system |= none
    run.metrics.write_text(json.dumps(metrics))
    source = read_source(run, None, pictures=False)
    states = {line.item.number: line.state for line in filled(FORMS["claim"], source)}
    assert {states[n] for n in ("21", "28", "37", "38", "39")} == {State.OPEN}
    with pytest.raises(ModelRefused, match="no finished fold"):
        write_card(CardRequest(run.path))
