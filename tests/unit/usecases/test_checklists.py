"""Reporting checklists: every item once, filled from the run, completed by authors, never more."""

from __future__ import annotations

import csv
import json
import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from renalkit.errors import ConfigError
from renalkit.store.runs import REPORTING, RunFolder, changed_files, check_manifest, write_manifest
from renalkit.usecases.checklists import ChecklistRequest, checklist_words, fill_checklists
from renalkit.usecases.progress import Silent
from renalkit.usecases.report import read_source, write_report
from renalkit.usecases.reporting import read_reporting
from renalkit.writers.checklist import Form, State, counts, filled
from renalkit.writers.checklists_section import FORMS
from renalkit.writers.source import ReportSource


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, made_run: ModuleType) -> Path:
    run: Path = made_run.make_run(tmp_path_factory.mktemp("made")).run
    return run


@pytest.fixture
def made(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original.parents[1], tmp_path / "work")
    return tmp_path / "work" / "runs" / "made-run"


@pytest.fixture(scope="module")
def source(original: Path) -> ReportSource:
    return read_source(RunFolder(original), None, pictures=False)


def states(form: str, source: ReportSource) -> dict[str, State]:
    return {line.item.number: line.state for line in filled(FORMS[form], source)}


# ---- the forms -----------------------------------------------------------------------------


def test_claim_has_its_44_items_in_order() -> None:
    assert [i.number for i in FORMS["claim"].items] == [str(n) for n in range(1, 45)]


def test_tripod_ai_has_its_27_items_with_their_parts_in_order() -> None:
    numbers = [i.number for i in FORMS["tripod-ai"].items]
    assert len(numbers) == len(set(numbers)) == 52
    whole = list(dict.fromkeys(int(re.sub(r"\D", "", n)) for n in numbers))
    assert whole == list(range(1, 28))
    parts = {n: [x for x in numbers if re.fullmatch(rf"{n}[a-z]", x)] for n in whole}
    counted = {n: len(p) for n, p in parts.items() if p}
    assert counted == {3: 3, 5: 2, 6: 3, 8: 3, 9: 3, 12: 7, 18: 6, 20: 3, 23: 2, 27: 3}


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda f: f.name)
def test_every_item_says_what_it_asks_and_what_to_write(form: Form) -> None:
    for item in form.items:
        assert item.asks
        assert not item.asks.endswith("."), item.number
        assert item.to_add.endswith("."), item.number
        assert len(item.asks) <= 85, item.number


# ---- what the run answers ------------------------------------------------------------------


def test_the_run_answers_what_it_knows(source: ReportSource) -> None:
    found = states("claim", source)
    for number in ("9", "12", "19", "20", "22", "23", "24", "25", "26", "27", "28", "29", "32"):
        assert found[number] is State.RUN, number
    for number in ("35", "37", "38"):
        assert found[number] is State.RUN, number
    for number in ("7", "8", "13", "21", "33", "39", "40", "42"):
        assert found[number] is State.PARTLY, number
    for number in ("4", "5", "15", "34", "44"):
        assert found[number] is State.OPEN, number
    other = states("tripod-ai", source)
    for number in ("7", "11", "12a", "12g", "13", "15", "16", "20a", "21", "23a", "24"):
        assert other[number] is State.RUN, number
    for number in ("3a", "8c", "17", "18a", "18b", "19", "27c"):
        assert other[number] is State.OPEN, number


def test_answers_are_the_run_s_own_words(source: ReportSource) -> None:
    said = {line.item.number: line.from_run for line in filled(FORMS["claim"], source)}
    assert "no lesion in view (2)" in said["35"]
    assert "waived by name: L03" in said["20"]
    assert "renalkit 0.1.0" in said["23"]
    auc = source.metrics["systems"][0]["classification"]["patient"]["auc"]
    assert f"{auc['value']:.3f}" in said["37"]
    assert auc["method"] in said["29"]
    assert "no external test" in said["40"]


def test_what_is_not_in_the_record_is_not_answered(source: ReportSource) -> None:
    bare = replace(
        source,
        settings={},
        jobs={},
        settings_digest="",
        split={},
        cards={},
        images=None,
        characteristics=None,
        subgroups=None,
        usefulness=None,
        comparisons=None,
        check=None,
    )
    found = states("claim", bare)
    for number in ("9", "12", "19", "20", "24", "25", "26", "27", "30", "32", "33", "42"):
        assert found[number] in (State.OPEN, State.PARTLY), number
    for number in ("9", "19", "20", "24", "25", "26", "27"):
        assert found[number] is State.OPEN, number
    assert "authors must write this" in filled(FORMS["claim"], bare)[8].words


def test_agreement_of_readers_and_age_and_sex_complete_their_items(source: ReportSource) -> None:
    dice = {"value": 0.91, "low": 0.88, "high": 0.93, "level": 0.95, "n": 9, "unit": "patient"}
    ceiling = {"what": "masks", "readers": ["a", "b"], "mean": dice | {"method": "bootstrap"}}
    whole = {"missing": 0, "counts": [4, 10], "n": 14}
    years = {"mean": 60.0, "sd": 9.0, "median": 61.0, "q1": 50.0, "q3": 70.0, "missing": 0, "n": 14}
    rows = [
        {"variable": "age_years", "kind": "number", "summary": "mean and SD", "overall": years},
        {"variable": "sex", "kind": "category", "levels": ["F", "M"], "overall": whole},
        {"variable": "reference_standard", "kind": "category", "levels": ["a", "b"]}
        | {"overall": {"missing": 2, "counts": [3, 9], "n": 12}},
    ]
    for row in rows:
        row |= {"test": "", "p": None}
    tables = {"tables": [{"by": "class", "rows": rows}]}
    found = replace(source, reader_ceiling=ceiling, characteristics=tables)
    lines = {line.item.number: line for line in filled(FORMS["claim"], found)}
    assert lines["18"].state is State.RUN
    assert "Two readers outlined lesions (masks); mean Dice between them 0.910" in lines["18"].words
    assert lines["36"].state is State.RUN
    assert "Age 60.0 ± 9.0 years; sex 4 F and 10 M." in lines["36"].words
    assert lines["14"].state is State.PARTLY
    assert "a (3) and b (9); not recorded for 2." in lines["14"].words
    assert "reference standard (2)" in lines["12"].words


# ---- what authors add ----------------------------------------------------------------------


def test_the_file_is_made_once_and_can_be_filled(made: Path) -> None:
    first = fill_checklists(ChecklistRequest(made))
    assert first["made"] is True
    path = made / REPORTING
    tables = tomllib.loads(path.read_text())
    assert set(tables) == {"card", "claim", "tripod-ai"}
    assert list(tables["claim"]) == [i.number for i in FORMS["claim"].items]
    assert set(tables["tripod-ai"].values()) == {""}
    text = path.read_text()
    text = text.replace('"5" = ""', '"5" = "Retrospective <b>cohort</b>."', 1)
    text = text.replace('"17" = ""\n', '"17" = """\nCommittee 7,\nwaived."""\n')
    path.write_text(text)
    second = fill_checklists(ChecklistRequest(made, "claim"))
    assert second["made"] is False
    assert path.read_text() == text
    claim = {i["item"]: i for i in second["forms"][0]["items"]}
    assert claim["5"]["state"] == "authors"
    assert claim["5"]["to_add"] == ""
    report = write_report(made, None, Silent()).read_text()
    assert "Retrospective &lt;b&gt;cohort&lt;/b&gt;." in report
    assert "Committee 7,\nwaived." in report


def test_what_is_wrong_in_the_file_is_all_told(made: Path) -> None:
    (made / REPORTING).write_text('[claim]\n"45" = "x"\n[tripod-ai]\n"12h" = "y"\n"5" = "z"\n')
    with pytest.raises(ConfigError) as caught:
        fill_checklists(ChecklistRequest(made))
    assert caught.value.where == REPORTING
    assert 'claim."45": CLAIM 2024 has no such item; its items are 1 to 44' in str(caught.value)
    assert [p.partition(":")[0] for p in caught.value.problems] == [
        'claim."45"',
        'tripod-ai."12h"',
        'tripod-ai."5"',
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[clam]\n", "did you mean 'claim'"),
        ("[card]\nlicense = 'x'\n", "did you mean 'licence'"),
        ("[claim]\n5 = 3\n", "valid string"),
        ("claim = [", "not TOML"),
        ('[tripod_ai]\n"1" = "x"\n', "tripod-ai"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(made: Path, text: str, words: str) -> None:
    (made / REPORTING).write_text(text)
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        read_reporting(RunFolder(made))
    assert caught.value.where == REPORTING


def test_writing_it_is_no_damage_and_no_other_run(made: Path) -> None:
    write_manifest(made)
    before = json.loads((made / "experiment.json").read_text())["digest"]
    fill_checklists(ChecklistRequest(made))
    (made / REPORTING).write_text('[claim]\n"5" = "Prospective."\n')
    write_report(made, None, Silent())
    assert changed_files(made) == ()
    assert check_manifest(made).extra == ()
    assert json.loads((made / "experiment.json").read_text())["digest"] == before


# ---- what is written -----------------------------------------------------------------------


def test_the_csv_has_a_line_per_item(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "forms.csv"
    found = fill_checklists(ChecklistRequest(made, None, out))
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 44 + 52
    assert {r["form"] for r in rows} == {"claim", "tripod-ai"}
    for form in found["forms"]:
        own = [r for r in rows if r["form"] == form["form"]]
        assert sum(form["counts"].values()) == len(own)
        for state in State:
            n = sum(r["state"] == state.value for r in own)
            assert form["counts"][state.name.lower()] == n
    for row in rows:
        assert bool(row["to_add"]) == (row["state"] in ("open", "partly"))


def test_html_and_markdown_hold_one_form_when_asked(made: Path, tmp_path: Path) -> None:
    for suffix in (".html", ".md"):
        out = tmp_path / f"claim{suffix}"
        fill_checklists(ChecklistRequest(made, "claim", out))
        text = out.read_text()
        assert "CLAIM 2024" in text
        assert "TRIPOD+AI, item by item" not in text
        assert "does not mean that a study complies" in text
        assert "not a medical device" in text
        assert "<details" not in text


@pytest.mark.parametrize(
    ("form", "name", "words"),
    [("stard", "x.csv", "'stard' is not one of claim, tripod-ai"), (None, "x.docx", "x.docx")],
)
def test_unknown_forms_and_suffixes_are_refused(
    made: Path, tmp_path: Path, form: str | None, name: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        fill_checklists(ChecklistRequest(made, form, tmp_path / name))
    assert not (tmp_path / name).exists()


def test_the_report_folds_both_forms_with_their_counts(made: Path, source: ReportSource) -> None:
    text = write_report(made, None, Silent()).read_text()
    section = text[text.index('id="checklists"') :]
    for form in FORMS.values():
        n: dict[State, Any] = counts(filled(form, source))
        words = f"{form.title}: {n[State.RUN]} of {len(form.items)} items answered by the run"
        assert words in section
    assert (made / "figures" / "tables" / "checklist-claim.csv").exists()


def test_words_for_a_terminal_name_what_is_open(made: Path) -> None:
    words = checklist_words(fill_checklists(ChecklistRequest(made, "claim")))
    assert re.search(r"^ +44  open +Funding", words, re.MULTILINE)
    assert REPORTING in words
    assert " 35 " not in words.replace("35 items", "")
