"""Simulated patients: shares, independence, truth that JSON can hold."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from renalkit.errors import ConfigError
from renalkit.phantom.bmode.picture import SCANNERS
from renalkit.phantom.faults import FaultDials
from renalkit.phantom.patients import CLASSES, PatientPlan, Stream, draw_patient
from renalkit.phantom.readings import READERS


def drawn(plan):
    return [draw_patient(plan, index) for index in range(plan.n_patients)]


def auc(scores, positive):
    difference = np.subtract.outer(scores[positive], scores[~positive])
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def test_shares_are_met():
    labels = Counter(p.label for p in drawn(PatientPlan(10, seed=5, normal_share=0.2)))
    assert labels == {"benign": 3, "malignant": 5, "normal": 2}


def test_a_patient_depends_on_seed_and_number_only():
    plan = PatientPlan(3, seed=2, views=(1, 1))
    for one, two in zip(drawn(plan), drawn(replace(plan, views=(2, 2))), strict=True):
        assert (one.anatomy, one.views[0], one.scanner) == (two.anatomy, two.views[0], two.scanner)
        assert one.readings == two.readings
        assert len(two.views) == 2
    other = draw_patient(replace(plan, seed=3), 0)
    assert other.anatomy != draw_patient(plan, 0).anatomy


def test_streams_give_the_same_numbers_again():
    patient = draw_patient(PatientPlan(2), 1)
    first, again = (patient.stream(Stream.CEUS).random(3) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, patient.stream(Stream.CT).random(3))


def test_scanner_and_site_do_not_follow_the_class():
    patients = drawn(PatientPlan(2400, seed=3, positive_share=0.5, views=(1, 1)))
    table = Counter((p.label, p.scanner.name) for p in patients)
    assert {name for _, name in table} == {s.name for s in SCANNERS}
    for scanner in SCANNERS:
        malignant, benign = table["malignant", scanner.name], table["benign", scanner.name]
        # Difference of two binomial shares of 1200: 4 standard errors are 0.082.
        assert abs(malignant - benign) / 1200 < 0.082


def test_readers_read_the_evidence_of_the_pictures():
    patients = drawn(PatientPlan(1500, seed=1, positive_share=0.5, views=(1, 1)))
    positive = np.array([p.positive for p in patients])
    for place, reader in enumerate(READERS):
        scores = np.array([p.readings[place].score for p in patients], float)
        assert auc(scores, positive) == pytest.approx(reader.auc, abs=0.04)
    ideal = np.array([p.ideal[2] for p in patients])[positive]
    senior = np.array([p.readings[5].score for p in patients], float)[positive]
    ranks = [x.argsort().argsort() for x in (ideal, senior)]
    assert np.corrcoef(*ranks)[0, 1] == pytest.approx(READERS[5].correlation ** 0.5, abs=0.08)


def test_grade_cohorts_hold_graded_carcinomas():
    for patient in drawn(PatientPlan(60, target="grade")):
        assert patient.label in CLASSES["grade"]
        assert patient.grade in ((3, 4) if patient.label == "high" else (1, 2))
        assert patient.histology in ("ccRCC", "pRCC")


def test_normal_patients_have_no_mass_and_no_readings():
    for patient in drawn(PatientPlan(4, normal_share=1.0)):
        assert patient.positive is patient.latents is patient.histology is patient.ideal is None
        assert patient.anatomy.lesion is None
        assert patient.readings == ()
        assert patient.written_label == "normal"


def test_label_noise_changes_the_written_label_only():
    for patient in drawn(PatientPlan(20, dials=FaultDials(label_noise=1.0))):
        assert {patient.label, patient.written_label} == {"benign", "malignant"}
        assert patient.truth()["label"] == patient.label


def test_truth_is_plain():
    for patient in drawn(PatientPlan(6, normal_share=0.3)):
        text = json.dumps(patient.truth(), allow_nan=False)
        assert json.loads(text)["patient"] == patient.name


def test_reports_all_problems_at_once():
    with pytest.raises(ConfigError) as caught:
        PatientPlan(
            0, seed=-1, level="x", target="y", views=(3, 2), positive_share=1.5, normal_share=-0.1
        )
    assert len(caught.value.problems) == 7
