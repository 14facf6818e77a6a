"""The report of a finished run: complete, self-contained, equal bytes, nothing foreign acting."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from renalkit.domain.splits import Plan
from renalkit.errors import MissingExtra, StoreError
from renalkit.store.runs import MANIFEST, changed_files, write_manifest
from renalkit.usecases.progress import Silent
from renalkit.usecases.report import choose_cases, write_report
from renalkit.writers.source import Case

NASTY = "<img src=x onerror=alert(1)>\x1b[2J\u202e\r\nfake {{ 7 * 7 }} =cmd|' /C calc'!A0 $x^{"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, made_run: ModuleType) -> Any:
    return made_run.make_run(tmp_path_factory.mktemp("made"), attention=True)


@pytest.fixture
def made(original: Any, tmp_path: Path) -> Path:
    """A copy of the made run, its cohort where the experiment says."""
    root = original.run.parents[1]
    shutil.copytree(root, tmp_path / "work")
    return tmp_path / "work" / "runs" / "made-run"


class Page(HTMLParser):
    """Tags, attributes and text of a page; unclosed or crossed elements fail."""

    VOID = ("meta", "link", "img", "br", "hr")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.stack:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def rendered(original: Any) -> tuple[Path, Page]:
    """The untouched run with its report, for tests that only look."""
    return original.run, report_of(original.run)


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory, made_run: ModuleType) -> tuple[Path, Page]:
    """A run of enough patients for figures of subgroups and a clinical model, with its report."""
    run = made_run.make_run(tmp_path_factory.mktemp("larger"), n_patients=40, facts=True).run
    return run, report_of(run)


def csv_rows(path: Path) -> list[list[str]]:
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))[1:]


def report_of(run: Path, cohort: Path | None = None) -> Page:
    return Page(write_report(run, cohort, Silent()).read_text(encoding="utf-8"))


def edit(path: Path, change: Any) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_every_section_of_the_issue_is_there(rendered: tuple[Path, Page]) -> None:
    made, page = rendered
    titles = [dict(a)["href"] for t, a in page.tags if t == "a"]
    assert titles == [
        f"#{name}"
        for name in (
            *("summary", "cohort", "patients", "checks", "segmentation", "lesions"),
            "classification",
            *("usefulness", "comparisons", "subgroups", "training", "cases", "complexity", "cards"),
            *("methods", "checklists", "configuration"),
        )
    ]
    ids = {a.get("id") for _, a in page.tags}
    assert {t[1:] for t in titles} <= ids
    for words in (
        "Screened",
        "Shortcut probes",
        "Clopper",
        "n = 14 patients",
        "Fold mean ± SD",
        "Published",
        "95th percentile",
        "spatial attention",
        "L03",
    ):
        assert words in page.text, words


def test_the_page_needs_nothing_from_outside(rendered: tuple[Path, Page]) -> None:
    made, page = rendered
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "form")
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href"):
                assert value is not None
                assert value.startswith(("#", "data:image/png;base64,")), value
    html = (made / "report.html").read_text()
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_it_says_at_both_ends_that_it_is_no_device(rendered: tuple[Path, Page]) -> None:
    made, page = rendered
    text = page.text
    words = "Research software, not a medical device"
    assert text.index(words) < text.index("Contents")
    assert text.rindex(words) > len(text) - 120


def test_tables_and_figures_are_numbered_in_order(rendered: tuple[Path, Page]) -> None:
    html = (rendered[0] / "report.html").read_text()
    for kind in ("Table", "Figure"):
        numbers = [int(n) for n in re.findall(rf"<figcaption><b>{kind} (\d+)\.</b>", html)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= 10


def test_every_figure_has_its_numbers_beside_it(rendered: tuple[Path, Page]) -> None:
    made, _ = rendered
    drawings = {p.stem for p in (made / "figures").rglob("*.svg")}
    tables = made / "figures" / "tables"
    assert {p.stem for p in tables.glob("*.tex")} == {p.stem for p in tables.glob("*.csv")}
    assert (tables / "characteristics.tex").exists()
    assert drawings == {p.stem for p in (made / "figures").glob("*.csv")}
    assert {"flow", "roc-patient", "confusion-frame", "comparisons", "curves-unet"} <= drawings
    pixels = {p.stem for p in (made / "figures" / "pictures").glob("*.svg")}
    assert pixels == {"cases-multitask-us", "cases-unet"}
    for path in (made / "figures").glob("*.svg"):
        assert "data:image" not in path.read_text(), path


def test_the_page_prints_the_stored_numbers(rendered: tuple[Path, Page]) -> None:
    made, page = rendered
    metrics, text = json.loads((made / "metrics.json").read_text()), page.text
    for system in metrics["systems"]:
        if system["segmentation"]:
            e = system["segmentation"]["pooled"]["dice"]
            assert f"{e['value']:.3f}" in text
            assert f"({e['low']:.2f}–{e['high']:.2f})" in text
        if system["classification"]:
            assert f"{system['classification']['patient']['auc']['value']:.3f}" in text
    differences = json.loads((made / "comparisons.json").read_text())["rows"]
    over_images = [r for r in differences if "n_frames" in r]
    assert {r["metric"] for r in over_images} == {"dice", "iou", "hd95", "assd", "nsd"}
    for row in over_images:
        n = row["difference"]["n"]
        assert (row["better"] == "lower") is (row["metric"] in ("hd95", "assd"))
        marked = rf"\b{row['n_frames']} images(\s+[a-z])?\s+{n}\b"
        assert re.search(marked, text.replace("\u202f", ""))
    points = csv_rows(made / "figures" / "roc-patient.csv")
    curve = metrics["systems"][0]["classification"]["patient"]["roc"]["fpr"]
    assert [float(r[2]) for r in points if r[0] == "multitask-us"] == pytest.approx(curve)


def test_the_comparisons_print_every_test(larger: tuple[Path, Page]) -> None:
    made, page = larger
    rows = json.loads((made / "comparisons.json").read_text())["rows"]
    printed = csv_rows(made / "figures" / "tables" / "comparisons.csv")
    assert len(printed) == len(rows)
    for row, cells in zip(rows, printed, strict=True):
        value = row["difference"]["value"]
        digits = 2 if "length_unit" in row else 3
        assert cells[4].removeprefix("'").startswith(f"{value:+.{digits}f}".replace("-", "\u2212"))
        for cell, p in ((cells[5], row["p"]), (cells[6], row["p_holm"])):
            assert cell == ("<0.001" if p < 0.001 else f"{p:.3f}")
        assert bool(cells[7]) is ("wilcoxon" in row)
    over = csv_rows(made / "figures" / "tables" / "comparisons-folds.csv")
    tested = [r["over_folds"] for r in rows if r["over_folds"]]
    assert len(over) == len(tested)
    for test, cells in zip(tested, over, strict=True):
        assert f"± {test['sd']:.3f}" in cells[2] or f"± {test['sd']:.2f}" in cells[2]
    assert "Nadeau and Bengio" in page.text


def test_lesions_print_the_stored_numbers(larger: tuple[Path, Page]) -> None:
    made, page = larger
    stored = json.loads((made / "lesions.json").read_text())
    for system, cells in zip(
        stored["systems"], csv_rows(made / "figures" / "tables" / "lesions.csv"), strict=True
    ):
        assert cells[0] == system["label"]
        assert cells[3].startswith(f"{system['recall']['value']:.3f} (")
        points = [r for r in csv_rows(made / "figures" / "froc.csv") if r[0] == system["label"]]
        assert [float(r[2]) for r in points] == pytest.approx(
            [p["sensitivity"] for p in system["froc"]["points"]]
        )
        missed = csv_rows(made / "figures" / "tables" / f"missed-{system['label']}.csv")
        assert [r[1] for r in missed] == [m["study"] for m in system["missed"]][:40]
        assert f"Missed by {system['label']}: {len(system['missed'])} lesion" in page.text
    sizes = csv_rows(made / "figures" / "lesions-size.csv")
    assert [r[1] for r in sizes] == sorted(
        (r[1] for r in sizes), key=lambda size: 0 if "under" in size else float(size.split()[0])
    )
    assert "mean probability of the region" in page.text
    assert "Readers as ceiling" not in page.text


def test_masks_without_scores_are_one_operating_point_and_readers_a_ceiling(made: Path) -> None:
    def older(found: Any) -> None:
        for system in found["systems"]:
            system.update(froc=None, score="no score per candidate: one operating point")
        found["readers"] = {
            "what": "masks",
            "readers": ["r1", "r2", "r3"],
            "mean": found["systems"][0]["recall"] | {"value": 0.9512, "n": 11},
            "lowest": 0.81,
            "pairs": 42,
            "empty": 0,
        }

    edit(made / "lesions.json", older)
    page = report_of(made)
    words = "No curve for multitask-us and unet (no score per candidate: one operating point)."
    assert words in page.text
    assert "3 readers with one another" in page.text
    ceiling = csv_rows(made / "figures" / "ceiling.csv")
    assert [(r[0], float(r[1])) for r in ceiling][0] == ("3 readers with one another", 0.9512)
    metrics = json.loads((made / "metrics.json").read_text())
    assert float(ceiling[1][1]) == pytest.approx(
        metrics["systems"][0]["segmentation"]["pooled"]["dice"]["value"]
    )


def test_the_clinical_model_is_no_network_and_shows_its_odds_ratios(
    larger: tuple[Path, Page],
) -> None:
    made, page = larger
    probes = csv_rows(made / "figures" / "tables" / "probes.csv")
    assert {r[0]: r[1] for r in probes}["clinical"] == "facts, logistic regression"
    stored = json.loads((made / "clinical" / "coefficients.json").read_text())
    (only,) = stored["classes"]
    printed = csv_rows(made / "figures" / "tables" / "clinical.csv")
    assert [r[1] for r in printed][:3] == ["per mm", "regular against irregular", "per year"]
    for fact, cells in zip(only["facts"], printed, strict=True):
        assert cells[2].startswith(f"{fact['odds_ratio']['value']:.3f} (")
    few = f"Fewer than 10 events per variable ({only['events_per_variable']:.1f} for malignant)"
    assert few in page.text
    trained = csv_rows(made / "figures" / "tables" / "training.csv")
    assert "clinical" not in {r[0] for r in trained}


def test_folds_that_leave_a_scanner_out_bear_its_name(tmp_path: Path, made_run: ModuleType) -> None:
    made = made_run.make_run(tmp_path, n_patients=30, plan=Plan.LEAVE_SCANNER_OUT)
    page = report_of(made.run)
    tables = made.run / "figures" / "tables"
    names = [f"Phantom scanner-{letter}" for letter in "abc"]
    metrics = json.loads((made.run / "metrics.json").read_text())
    dice = metrics["systems"][0]["segmentation"]["fold_mean"]["dice"]["folds"]
    each = csv_rows(tables / "segmentation-folds.csv")[0][5]
    assert each == "; ".join(f"{n} {d:.3f}" for n, d in zip(names, dice, strict=True))
    for table, column in (("thresholds", 1), ("training", 1)):
        rows = csv_rows(tables / f"{table}.csv")
        assert [r[column] for r in rows[:3]] == names
    assert "Every scanner was tested by models that never saw it" in page.text
    assert "No test: every fold tests another place." in page.text


def test_surgeries_avoided_are_said_with_what_they_assume(larger: tuple[Path, Page]) -> None:
    made, page = larger
    text = page.text.replace("\u00a0", " ")
    for system in json.loads((made / "usefulness.json").read_text())["systems"]:
        point = next(p for p in system["decision"]["points"] if p["threshold"] == 0.2)
        e = point["avoided_per_100"]
        value = f"{e['value']:.1f}".replace("-", "\u2212")
        assert f"{system['label']} {value} (95 % CI " in text
    assert "one missed case of malignant to be as bad as 4 needless surgeries" in text
    assert "of whom 60.0 % are malignant" in text


COLOURS = {
    "multitask-us": "#0072b2",
    "unet": "#d55e00",
    "resnet18": "#009e73",
    "clinical": "#cc79a7",
}
DRAWN = {
    "probes": ("multitask-us", "resnet18", "clinical"),
    "segmentation-dice": ("multitask-us", "unet"),
    "segmentation-cases": ("multitask-us", "unet"),
    "lesions-size": ("multitask-us", "unet"),
    "froc": ("multitask-us", "unet"),
    "roc-patient": ("multitask-us", "resnet18", "clinical"),
    "roc-frame": ("multitask-us", "resnet18", "clinical"),
    "reliability": ("multitask-us", "resnet18", "clinical"),
    "decision": ("multitask-us", "resnet18", "clinical"),
    "comparisons": ("unet", "resnet18", "clinical"),
    "curves-unet": ("unet",),
    "curves-resnet18": ("resnet18",),
    "subgroups-auc-resnet18": ("resnet18",),
    "subgroups-dice-unet": ("unet",),
    "subgroups-auc-clinical": ("clinical",),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_system_has_one_colour_in_every_figure(larger: tuple[Path, Page], name: str) -> None:
    drawing = (larger[0] / "figures" / f"{name}.svg").read_text().lower()
    found = {label for label, tone in COLOURS.items() if tone in drawing}
    assert found == set(DRAWN[name])


def test_nothing_undefined_is_printed_as_such(made: Path) -> None:
    def undefine(m: Any) -> None:
        for s in m["systems"]:
            if s["classification"]:
                for name in ("auc", "f1", "sensitivity"):
                    s["classification"]["patient"][name] = None
                s["classification"]["patient"]["roc"] = None
                s["classification"]["fold_mean"]["auc"] = {"mean": None, "sd": None, "folds": []}
            s["complexity"] = None

    edit(made / "metrics.json", undefine)
    text = report_of(made).text
    assert "n/a" in text
    assert not re.search(r"\bnan\b|\binf\b", text, re.IGNORECASE)


def test_D55_D56_foreign_words_stay_words(made: Path) -> None:
    def spoil(m: Any) -> None:
        m["cohort"]["scanners"][0]["name"] = NASTY
        m["cohort"]["flow"]["excluded"] = [[NASTY, 3]]
        m["cohort"]["classes"][0]["label"] = NASTY
        m["task"]["classes"][0] = NASTY
        m["systems"][0]["segmentation"]["pooled"]["dice"]["note"] = NASTY

    edit(made / "metrics.json", spoil)
    edit(made / "check.json", lambda c: c["findings"][0].update(words=NASTY, guard=NASTY))
    (made / "experiment.toml").write_text(f"# {NASTY}\n", encoding="utf-8")
    page = report_of(made)
    assert not any(tag == "img" for tag, _ in page.tags)
    html = (made / "report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert "{{ 7 * 7 }}" in page.text
    for path in (made / "figures").rglob("*.*"):
        written = path.read_text(encoding="utf-8")
        assert "\x1b" not in written
        assert "<img" not in written or path.suffix == ".csv"


def test_paths_of_the_machine_are_not_told(made: Path) -> None:
    weights = '{ init_weights = "/home/dr-who/net.safetensors" }'
    (made / "experiment.toml").write_text(
        'cohort = "/home/dr-who/secret/phantom"\n[split]\nexternal = "/home/dr-who/other"\n'
        f"[[systems]]\nparams = {weights}\n"
    )

    def with_paths(stored: Any) -> None:
        settings = stored["settings"]
        settings["cohort"] = "/home/dr-who/secret/phantom"
        settings["split"]["external"] = "/home/dr-who/other"
        settings["systems"][0]["params"]["init_weights"] = "/home/dr-who/net.safetensors"

    edit(made / "experiment.json", with_paths)
    text = report_of(made).text
    assert "dr-who" not in text
    assert "phantom" in text


def test_without_its_cohort_the_report_builds_and_says_so(made: Path) -> None:
    shutil.rmtree(made.parents[1] / "cohorts")
    page = report_of(made)
    assert "Pictures are left out: they need the cohort" in page.text
    assert "data:image" not in (made / "report.html").read_text()


def test_equal_runs_give_equal_bytes_wherever_the_cohort_is(
    rendered: tuple[Path, Page], made: Path, tmp_path: Path
) -> None:
    shutil.rmtree(made / "figures", ignore_errors=True)
    shutil.move(made.parents[1] / "cohorts" / "phantom", tmp_path / "moved")
    report_of(made, tmp_path / "moved")
    before = [rendered[0] / "report.html", *(rendered[0] / "figures").rglob("*.*")]
    assert len(before) > 20
    for path in before:
        assert (made / path.relative_to(rendered[0])).read_bytes() == path.read_bytes(), path


def test_another_cohort_is_refused(made: Path) -> None:
    edit(made / "metrics.json", lambda m: m.update(cohort_digest="0" * 64))
    with pytest.raises(StoreError, match="not the cohort of the run"):
        write_report(made, made.parents[1] / "cohorts" / "phantom", Silent())
    assert "it has changed since the run" in report_of(made).text


def test_a_run_without_figures_is_refused(made: Path) -> None:
    (made / "metrics.json").unlink()
    with pytest.raises(StoreError, match="no figures yet"):
        write_report(made, None, Silent())


@pytest.mark.parametrize("text", ["[]", '{"schema": 2}', '{"schema": 1}'])
def test_metrics_of_another_form_are_refused(made: Path, text: str) -> None:
    (made / "metrics.json").write_text(text)
    with pytest.raises(StoreError, match="another form"):
        write_report(made, None, Silent())


def test_a_label_cannot_lead_out_of_the_run(made: Path) -> None:
    edit(made / "metrics.json", lambda m: m["systems"][0].update(label="../../elsewhere"))
    with pytest.raises(StoreError, match="no label"):
        write_report(made, None, Silent())


def test_a_bare_run_still_has_a_report(made: Path) -> None:
    """Only metrics.json is needed; each absent part is told or left out."""
    for name in (
        "check.json",
        "record.json",
        "comparisons.json",
        "cases.csv",
        "characteristics.json",
        "subgroups.json",
        "usefulness.json",
        "lesions.json",
        "folds.json",
        "experiment.json",
        "experiment.toml",
    ):
        (made / name).unlink()
    for path in [
        *made.rglob("history.csv"),
        *made.rglob("complexity.json"),
        *made.rglob("done.json"),
    ]:
        path.unlink()
    text = report_of(made).text
    assert "No check of the cohort was stored" in text
    assert "was not there when this report was written" in text
    assert "No table of patients is stored with this run" in text
    assert "No figures of subgroups are stored with this run" in text
    assert "Calibration is not stored with this run" in text
    assert "Lesions were not counted in this run" in text


def test_the_methods_paragraph_says_what_was_done(larger: tuple[Path, Page]) -> None:
    _, page = larger
    for words in (
        "43 patients (43 studies) were screened and 40",
        "no lesion in view (2) and no reference standard (1)",
        "Patients were divided into three folds (plan kfold, seed 0, stratified by class)",
        "waived by name: L03",
        "fitted into 128 × 128 px",
        "started from random weights",
        "with Adam, learning rate 0.001 (constant), batches of 16, for at most 60 epochs",
        "Epoch kept, of epochs trained, over folds: multitask-us 19 of 24",
        "The weights of the best epoch by IoU",
        "(rule 'youden')",
        "PPV and NPV: Clopper-Pearson",
        "compared by Fisher's exact test, Pearson's chi-square test and Welch's t-test",
        "5 equal-mass bins, and net benefit",
        "Subgroups by scanner, site, sex, size and age",
        "200 times with seed 0",
        "Computed with renalkit 0.1.0 (python 3.11)",
    ):
        assert words in page.text, words


def test_the_methods_paragraph_names_the_methods_that_the_figures_name(made: Path) -> None:
    """No method is a literal: other words in the stored figures are other words in the text."""

    def rename(metrics: Any) -> None:
        for s in metrics["systems"]:
            if s["classification"]:
                s["classification"]["patient"]["auc"]["method"] = "method of another version"

    edit(made / "metrics.json", rename)
    text = report_of(made).text
    assert "AUC: method of another version; Accuracy" in text
    assert "AUC: DeLong" not in text


def test_calibration_and_decision_curves_print_the_stored_numbers(
    larger: tuple[Path, Page],
) -> None:
    made, page = larger
    stored = json.loads((made / "usefulness.json").read_text())
    for system in stored["systems"]:
        slope = system["calibration"]["slope"]
        assert f"{slope['value']:.3f}" in page.text
    points = csv_rows(made / "figures" / "decision.csv")
    first = stored["systems"][0]["decision"]["points"]
    drawn = [float(r[2]) for r in points if r[0] == stored["systems"][0]["label"]]
    assert drawn == pytest.approx([p["net_benefit"]["value"] for p in first])
    assert "5 equal-mass bins" in page.text


def test_patients_and_subgroups_print_the_stored_numbers(larger: tuple[Path, Page]) -> None:
    made, page = larger
    found = json.loads((made / "characteristics.json").read_text())["tables"][0]
    text = page.text.replace("\u202f", "").replace("\u00a0", " ")
    row = next(r for r in found["rows"] if r["kind"] == "category")
    n, known = row["overall"]["counts"][0], row["overall"]["n"]
    assert f"{n} ({100 * n / known:.1f} %)" in text
    assert row["test"] in text
    for group in found["groups"]:
        assert f"{group['name']} (n = {group['patients']})" in text
    assert "fewer than 10" in text
    forests = list((made / "figures").glob("subgroups-*.csv"))
    assert forests
    stored = json.loads((made / "subgroups.json").read_text())
    levels = [v for s in stored["systems"] for g in s["variables"] for v in g["levels"]]
    known_auc = {round(v["auc"]["value"], 6) for v in levels if v["auc"]["value"] is not None}
    drawn = {
        round(float(r[3]), 6) for f in forests if "-auc-" in f.name for r in csv_rows(f) if r[3]
    }
    assert drawn == known_auc


def test_an_attention_picture_of_another_kind_is_left_out(made: Path) -> None:
    for path in (made / "multitask-us" / "attention").glob("*.png"):
        path.write_bytes(b"no picture")
    report_of(made)
    drawing = (made / "figures" / "pictures" / "cases-multitask-us.svg").read_text()
    assert "spatial attention" not in drawing


def test_the_manifest_follows_the_report_only(made: Path) -> None:
    report_of(made)
    write_manifest(made)
    (made / "cases.csv").write_text((made / "cases.csv").read_text() + "\n")
    (made / "check.json").unlink()
    report_of(made)
    assert changed_files(made) == ("cases.csv", "check.json")
    assert (made / MANIFEST).read_text().count("report.html") == 1


def test_several_classes_have_macro_figures_and_a_curve_each(
    tmp_path: Path, made_run: ModuleType
) -> None:
    made = made_run.make_run(tmp_path, n_patients=18, classes=("benign", "malignant", "normal"))
    text = report_of(made.run).text
    assert "AUC (macro)" in text
    assert "Each class against the rest" in text
    assert "Left clean" in text
    rows = csv_rows(made.run / "figures" / "roc-patient.csv")
    assert {r[1] for r in rows} == {"benign", "malignant", "normal"}


def test_writing_a_report_loads_no_torch() -> None:
    code = "import sys, renalkit.usecases.report; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def case(dice: float | None, place: int, note: str = "") -> Case:
    return Case("a", 0, f"p{place:03}", "s", 0, 0, "benign", {"dice": dice}, "mm", note)


def test_best_median_and_worst_do_not_depend_on_order() -> None:
    found = [case(d / 10, i) for i, d in enumerate([3, 9, 1, 1, 9, 5, 7])]
    hidden = [case(0.0, 90, "reference empty"), case(1.0, 91, "both empty"), case(None, 92)]
    chosen = {rank: c.patient for rank, c in choose_cases(found + hidden)}
    assert chosen == {"best": "p004", "median": "p005", "worst": "p002"}
    assert choose_cases((found + hidden)[::-1]) == choose_cases(found + hidden)


@pytest.mark.parametrize(("n", "ranks"), [(0, []), (1, ["best"]), (2, ["best", "median"])])
def test_few_cases_are_shown_once(n: int, ranks: list[str]) -> None:
    assert [rank for rank, _ in choose_cases([case(i / 10, i) for i in range(n)])] == ranks


@pytest.mark.slow
def test_a_pdf_holds_the_whole_report_and_goes_with_it(made: Path) -> None:
    write_manifest(made)
    try:
        write_report(made, None, Silent(), pdf=True)
    except MissingExtra as error:
        pytest.skip(str(error))
    pdf = (made / "report.pdf").read_bytes()
    streams = re.findall(rb"/ObjStm[^>]*>>\s*stream\n(.*?)\nendstream", pdf, re.DOTALL)
    objects = b"".join(zlib.decompress(s) for s in streams)
    assert len(re.findall(rb"/Type */Page\b(?!s)", objects)) > 15
    assert b"/Subtype /Image" in pdf
    assert changed_files(made) == ()
    write_report(made, None, Silent())
    assert not (made / "report.pdf").exists()
    assert changed_files(made) == ()


def test_a_pdf_that_cannot_be_made_leaves_everything(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write_report(made, None, Silent()).read_bytes()
    edit(made / "metrics.json", lambda m: m["systems"].pop())
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(MissingExtra):
        write_report(made, None, Silent(), pdf=True)
    assert (made / "report.html").read_bytes() == before
