"""The page of a run with CT scans: whole, alone in its file, and made of the stored figures."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from renalkit.store.runs import RunFolder
from renalkit.systems.ct_cascade import CARD
from renalkit.usecases.cascade_evaluate import evaluate_scans
from renalkit.usecases.cascade_report import chosen_lesions
from renalkit.usecases.progress import Silent
from renalkit.usecases.report import read_source, write_report
from renalkit.writers.scan_sections import measured_claim

sys.path.insert(0, str(Path(__file__).parent))
from scanning import PLAN, ct_cohort, scan_run

SECTIONS = (
    *("Summary", "The paper", "The cohort", "Patients", "Checks", "Kidneys and masses drawn"),
    *("Lesions found", "Lesions named", "Pictures", "Paired comparisons", "Training"),
    *("Reporting checklists", "Configuration and provenance"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    cohort = ct_cohort(6, replace(PLAN, matrix=64), normal=2)
    made = scan_run(tmp_path_factory.mktemp("page"), cohort, (("ct-cascade", 0.2), ("worse", 0.5)))
    evaluate_scans(made.path, Silent())
    write_report(made.path, None, Silent())
    return made


def test_the_page_has_every_section_and_nothing_from_elsewhere(run: RunFolder) -> None:
    page = run.report.read_text(encoding="utf-8")
    heads = [
        h.strip() for h in re.findall(r"<h2[^>]*>(?:<span[^>]*>\d+</span>)?([^<]*)</h2>", page)
    ]
    assert heads == list(SECTIONS)
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)
    assert "nan" not in re.sub(r"data:[^\"]*", "", page).split()
    assert page.count("data:image/png") >= 8
    names = {p.name for p in run.figures.iterdir()}
    assert {"scan-dice.csv", "scan-froc.svg", "curves-ct-cascade-kidney.svg"} <= names


def test_equal_figures_give_equal_bytes(run: RunFolder) -> None:
    before = run.report.read_bytes()
    write_report(run.path, None, Silent())
    assert run.report.read_bytes() == before


def test_pictures_need_the_cohort(run: RunFolder) -> None:
    source = read_source(run, None)
    assert list(source.tiles) == ["ct-cascade", "worse"]
    first = source.tiles["ct-cascade"][0]
    assert first.title == "Large lesion 1"
    assert first.reference is not None
    assert first.reference.area_px > 0
    assert (first.reference.rows, first.reference.cols) == first.image.shape
    bare = read_source(run, None, pictures=False)
    assert (bare.tiles, bare.without_pictures) == ({}, "Pictures were not asked for.")


def test_large_lesions_are_of_different_patients_and_a_missed_one_is_shown() -> None:
    def row(patient: str, mm: float, mark: str) -> dict[str, str]:
        return {
            **{"patient": patient, "study": "s", "lesion": "1", "mark_iou_0_1": mark},
            "equivalent_diameter_mm": str(mm),
        }

    rows = [row("a", 30, "1"), row("a", 20, ""), row("b", 10, "1"), row("c", 5, "")]
    shown = [(title, r["equivalent_diameter_mm"]) for title, r in chosen_lesions(rows)]
    assert shown == [
        ("Large lesion 1", "30"),
        ("Large lesion 2", "10"),
        ("Large lesion 3", "5"),
        ("Largest missed", "20"),
    ]


def test_every_claim_of_the_card_has_its_figure(run: RunFolder) -> None:
    source = read_source(run, None, pictures=False)
    metrics = json.loads(run.metrics.read_text())
    found = metrics["systems"][0]
    claims = source.cards[CARD.name]["claims"]
    values = [measured_claim(source, source.systems[0], c) for c in claims]
    assert all(e is not None for e in values)
    shown = [e.value for e in values if e is not None]
    main = found["lesions"]["criteria"]["IoU 0.1"]
    classes = found["segmentation"]["classes"]
    assert shown[0] == classes[0]["dice"]["value"]
    assert shown[1] == shown[2] == classes[1]["dice"]["value"]
    assert shown[3] == shown[4] == main["recall"]["value"]
    sizes = {p["size"]: p["accuracy_found"]["value"] for p in main["classes"][0]["sizes"]}
    assert shown[5:] == [sizes.get("under 5 mm"), sizes["5 mm and over"]]
