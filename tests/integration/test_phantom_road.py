"""From simulated patients to a checked cohort: every file is used, and planted faults are found."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import pytest

from renalkit.cohort_checks.findings import Finding, Severity
from renalkit.domain.study import Study
from renalkit.errors import Reason
from renalkit.phantom.ceus.study import CeusOptions
from renalkit.phantom.faults import FaultDials
from renalkit.phantom.patients import PatientPlan
from renalkit.readers.contract import Outcome
from renalkit.store.cohorts import load_cohort
from renalkit.usecases.check import check
from renalkit.usecases.ingest import IngestReport, request_of, run_ingest
from renalkit.usecases.phantom import make_phantom
from renalkit.usecases.phantom_plans import PhantomPlan
from renalkit.usecases.progress import Silent

CLIP = CeusOptions(duration_s=2.0, rate_hz=3.0, rows=240, cols=320)
FAULTS = FaultDials(wrong_units=0.4, duplicates=0.4, leaking_calipers=0.5, label_noise=0.2)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


@dataclass(frozen=True)
class Road:
    """A phantom folder, what ingest said of it, and what the check found."""

    folder: Path
    report: IngestReport
    findings: tuple[Finding, ...]
    blocking: bool

    @property
    def names(self) -> dict[str, str]:
        """The patient's name in the phantom folder by pseudonym."""
        links = rows_of(self.report.links)
        return {r["key"]: r["stands_for"] for r in links if r["kind"] == "patient"}

    def faulty(self, fault: str) -> set[str]:
        """Patients that carry a fault, with their copies."""
        rows = rows_of(self.folder / "truth" / "patients.csv")
        named = {r["patient"] for r in rows if fault in r["faults"].split()}
        known = {r["patient"] for r in rows_of(self.folder / "labels.csv")}
        return {name for name in known if name.removesuffix("B") in named}

    def found(self, guard: str) -> set[str]:
        """Patients of a guard's findings."""
        by_study = {s.key: s.patient for s in self.report.cohort.studies}
        patients = {
            p
            for f in self.findings
            if f.guard == guard
            for p in (*f.patients, *(by_study[s] for s in f.studies))
        }
        return {self.names[p] for p in patients}


def travelled(root: Path, plan: PhantomPlan) -> Road:
    folder = root / "phantom"
    make_phantom(plan, folder, Silent(), workers=1)
    request = request_of(
        source=folder / "dicom",
        labels=folder / "labels.csv",
        annotations=folder / "boxes.csv",
        output=root / "cohort",
    )
    report = run_ingest(request)
    found = check(load_cohort(root / "cohort"))
    return Road(folder, report, found.findings, found.blocking)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Road:
    people = PatientPlan(5, seed=3, views=(1, 2), normal_share=0.2)
    plan = PhantomPlan("cohort", people, size=128, ceus=CLIP)
    return travelled(tmp_path_factory.mktemp("clean"), plan)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Road:
    people = PatientPlan(14, seed=2, views=(1, 2), dials=FAULTS)
    return travelled(tmp_path_factory.mktemp("faulty"), PhantomPlan("us", people, size=128))


def test_every_file_is_used(clean: Road, faulty: Road) -> None:
    for road in (clean, faulty):
        files = list((road.folder / "dicom").rglob("*.dcm"))
        assert len(road.report.account) == len(files)
        assert road.report.refused == road.report.count(Outcome.SKIPPED) == 0
        assert set(road.names.values()) == {r["patient"] for r in rows_of(road.folder / "labels.csv")}  # fmt: skip
    assert clean.report.count(Outcome.USED) == len(clean.report.account)
    assert clean.report.warnings == ()


def test_classes_and_boxes_arrive(clean: Road) -> None:
    labels = {r["patient"]: r["label"] for r in rows_of(clean.folder / "labels.csv")}
    boxes = rows_of(clean.folder / "boxes.csv")

    def label(study: Study) -> str | None:
        return study.label if study.label is not None else study.lesions[0].label

    studies = clean.report.cohort.studies
    assert len(studies) == len(labels)
    for study in studies:
        name = clean.names[study.patient]
        assert label(study) == labels[name]
        own = [b for b in boxes if f"/{name}/" in b["file"]]
        assert sum(len(lesion.rois) for lesion in study.lesions) == len(own)
        assert (not own) == (labels[name] == "normal")
        assert all(clip.regions for clip in study.clips)
        (cine,) = (clip for clip in study.clips if clip.n_frames > 1)
        assert cine.n_frames == 6


def test_a_clean_cohort_passes(clean: Road) -> None:
    assert not clean.blocking
    # Clips have the text of their console in the picture.
    assert {f.guard for f in clean.findings if f.severity is not Severity.NOTE} <= {"L07"}


def test_duplicated_patients_are_found(faulty: Road) -> None:
    assert len(faulty.faulty("duplicated")) >= 4
    assert faulty.found("L02") == faulty.faulty("duplicated")


def test_calipers_are_found(faulty: Road) -> None:
    assert len(faulty.faulty("calipers")) >= 3
    assert faulty.found("L07") == faulty.faulty("calipers")
    (finding,) = (f for f in faulty.findings if f.guard == "L07" and f.studies)
    assert finding.severity is Severity.REVIEW


def test_wrong_units_are_found(faulty: Road) -> None:
    wrong = {
        faulty.names[study.patient]
        for study in faulty.report.cohort.studies
        if any(d.reason is Reason.NO_SCALE for d in study.defects)
    }
    assert len(wrong) >= 4
    assert wrong == faulty.faulty("wrong_units")
    assert faulty.found("Q04") == wrong
