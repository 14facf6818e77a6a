"""8.7: what the rows of a published results table imply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalkit.metrics.classification import BinaryConfusion
from renalkit.metrics.published_tables import Finding, PublishedRow, audit_row

# Zhu et al. 2022, table 3: sensitivity, specificity, accuracy, PPV, NPV, AUC.
P2 = {
    "junior": (0.893, 0.587, 0.706, 0.580, 0.895, 0.740),
    "senior": (0.959, 0.629, 0.757, 0.623, 0.959, 0.794),
    "b-mode": (0.750, 0.770, 0.745, 0.734, 0.623, 0.820),
    "ceus": (0.738, 0.732, 0.739, 0.725, 0.622, 0.815),
    "fused": (0.804, 0.791, 0.800, 0.869, 0.700, 0.877),
}
MALIGNANT_IMAGES = 6135 / 9794


@pytest.mark.parametrize(
    ("row", "implied", "findings", "consistent"),
    [
        ("junior", {"ppv": 0.390, "npv": 0.392, "accuracy": 0.389}, {"single-point-auc"}, True),
        ("senior", {"ppv": 0.390, "npv": 0.396, "accuracy": 0.388}, {"single-point-auc"}, True),
        (
            "b-mode",
            {"ppv": 0.458, "npv": 0.651},
            {"accuracy-outside", "prevalence-disagrees"},
            False,
        ),
        (
            "ceus",
            {"ppv": 0.489, "npv": 0.629},
            {"accuracy-borderline", "prevalence-disagrees"},
            False,
        ),
        ("fused", {"ppv": 0.633, "npv": 0.634, "accuracy": 0.692}, set(), True),
    ],
)
def test_rows_of_the_fusion_paper(row, implied, findings, consistent):
    audit = audit_row(PublishedRow(row, *P2[row]))
    assert audit.prevalence == pytest.approx(implied, abs=5e-4)
    assert {f.value for f in audit.findings} == findings
    assert audit.consistent is consistent
    assert len(audit.words) == len(audit.findings)


def test_readers_count_the_other_class_as_positive():
    audit = audit_row(PublishedRow("junior", *P2["junior"], positive_share=MALIGNANT_IMAGES))
    assert audit.findings[0] is Finding.POSITIVE_SHARE_DIFFERS
    assert "the other class fits better" in audit.words[0]


cells = st.integers(1, 400)


@given(cells, cells, cells, cells, st.sampled_from([2, 3, 4]))
def test_every_real_table_passes_at_any_rounding(tp, fp, tn, fn, digits):
    c = BinaryConfusion(tp, fp, tn, fn)
    row = PublishedRow(
        "real",
        *(round(m.value, digits) for m in (c.sensitivity, c.specificity, c.accuracy, c.ppv, c.npv)),
        positive_share=(tp + fn) / c.n,
        half_step=0.5 * 10**-digits + 1e-12,
    )
    assert set(audit_row(row).findings) <= {Finding.ACCURACY_BORDERLINE}


@given(cells, cells, cells, cells)
def test_exact_measures_give_the_exact_prevalence(tp, fp, tn, fn):
    c = BinaryConfusion(tp, fp, tn, fn)
    values = (m.value for m in (c.sensitivity, c.specificity, c.accuracy, c.ppv, c.npv))
    audit = audit_row(PublishedRow("exact", *values, half_step=1e-9))
    for share in audit.prevalence.values():
        assert share == pytest.approx((tp + fn) / c.n, abs=1e-6)
    assert audit.consistent


def test_a_silent_table_finds_nothing():
    audit = audit_row(PublishedRow("abstract", 0.748, 0.791))
    assert (audit.prevalence, audit.findings, audit.consistent) == ({}, (), True)


@pytest.mark.parametrize(
    ("values", "message"),
    [((80.4, 0.7), "divide percentages"), ((float("nan"), 0.7), "fraction")],
)
def test_percentages_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PublishedRow("x", *values)
    with pytest.raises(ValueError, match="half of the last"):
        PublishedRow("x", 0.5, 0.5, half_step=0.5)
