"""8.7: what the rows of a published results table imply."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from renalkit.metrics.auc_inference import delong, hanley_mcneil_interval
from renalkit.metrics.classification import BinaryConfusion, confusion_at
from renalkit.metrics.inference import clopper_pearson, wilson
from renalkit.metrics.published_tables import (
    Cases,
    Finding,
    Printed,
    PublishedRow,
    audit_row,
    compare_sources,
)

# Zhu et al. 2022, table 3: sensitivity, specificity, accuracy, PPV, NPV, AUC.
P2 = {
    "junior": (0.893, 0.587, 0.706, 0.580, 0.895, 0.740),
    "senior": (0.959, 0.629, 0.757, 0.623, 0.959, 0.794),
    "b-mode": (0.750, 0.770, 0.745, 0.734, 0.623, 0.820),
    "ceus": (0.738, 0.732, 0.739, 0.725, 0.622, 0.815),
    "fused": (0.804, 0.791, 0.800, 0.869, 0.700, 0.877),
}
PATIENTS, IMAGES = Cases("patients", 181, 100), Cases("images", 9794, 6135)


def row_of(name, values, half_step=0.0005, **rest):
    return PublishedRow(name, *(Printed(v, half_step) for v in values), **rest)


def findings(row):
    return {f.value for f in audit_row(row).findings}


@pytest.mark.parametrize(
    ("row", "implied", "expected", "consistent"),
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
def test_rows_of_the_fusion_paper(row, implied, expected, consistent):
    audit = audit_row(row_of(row, P2[row]))
    assert audit.prevalence == pytest.approx(implied, abs=5e-4)
    assert {f.value for f in audit.findings} == expected
    assert audit.consistent is consistent
    assert len(audit.words) == len(audit.findings)


def test_readers_count_the_other_class_as_positive():
    audit = audit_row(row_of("junior", P2["junior"], cases=(IMAGES,)))
    assert audit.findings[0] is Finding.POSITIVE_SHARE_DIFFERS
    assert "the other class fits better" in audit.words[0]


cells = st.integers(1, 400)


@given(cells, cells, cells, cells, st.sampled_from([2, 3, 4]))
def test_every_real_table_passes_at_any_rounding(tp, fp, tn, fn, digits):
    c = BinaryConfusion(tp, fp, tn, fn)
    values = (c.sensitivity, c.specificity, c.accuracy, c.ppv, c.npv)
    row = row_of(
        "real",
        [round(m.value, digits) for m in values],
        0.5 * 10**-digits + 1e-12,
        cases=(Cases("patients", c.n, tp + fn), Cases("lesions", c.n)),
    )
    audit = audit_row(row)
    assert set(audit.findings) <= {Finding.ACCURACY_BORDERLINE}
    assert audit.whole_numbers == {"patients": True, "lesions": True}


@given(cells, cells, cells, cells)
def test_exact_measures_give_the_exact_prevalence(tp, fp, tn, fn):
    c = BinaryConfusion(tp, fp, tn, fn)
    values = [m.value for m in (c.sensitivity, c.specificity, c.accuracy, c.ppv, c.npv)]
    audit = audit_row(row_of("exact", values, 1e-9))
    for share in audit.prevalence.values():
        assert share == pytest.approx((tp + fn) / c.n, abs=1e-6)
    assert audit.consistent


def test_a_silent_table_finds_nothing():
    audit = audit_row(row_of("abstract", (0.748, 0.791)))
    assert (audit.prevalence, audit.findings, audit.consistent) == ({}, (), True)
    assert audit_row(PublishedRow("nothing", cases=(PATIENTS,))).findings == ()


# ------------------------------------------------------------------ numbers as printed


@pytest.mark.parametrize(
    ("text", "value", "half_step"),
    [
        ("0.804", 0.804, 0.0005),
        (".80", 0.80, 0.005),
        ("80.4%", 0.804, 0.0005),
        ("80.4 %", 0.804, 0.0005),
        ("80", 0.80, 0.005),
        ("100", 1.0, 0.005),
        ("1.00", 1.0, 0.005),
        ("0.5%", 0.005, 0.0005),
        ("0.7313685637", 0.7313685637, 5e-11),
    ],
)
def test_shares_are_read_with_their_rounding(text, value, half_step):
    found = Printed.parse(text)
    assert (found.value, found.half_step) == pytest.approx((value, half_step), abs=1e-15)


@pytest.mark.parametrize("text", ["", "x", "-0.4", "101 %", "0,8", "0.8 (0.7)", "1", "nan", "0"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(ValueError, match=r"share|fraction|digit"):
        Printed.parse(text)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Printed(80.4),
        lambda: Printed(float("nan")),
        lambda: Printed(0.5, 0.5),
        lambda: Cases("patients", 1),
        lambda: Cases("patients", 10, 10),
        lambda: Cases("patients", 10, 0),
        lambda: PublishedRow("x", intervals={"auc": (Printed(0.9), Printed(0.8))}),
        lambda: PublishedRow("x", intervals={"dice": (Printed(0.8), Printed(0.9))}),
        lambda: PublishedRow("x", cases=(PATIENTS, Cases("patients", 20, 5))),
    ],
)
def test_rows_that_mean_nothing_are_refused(build):
    with pytest.raises(ValueError, match=r"fraction|digit|classes|interval|twice"):
        build()


# ------------------------------------------------------------------ whole numbers


def brute_force(row, n_pos, n_neg):
    """Whether any table rounds to the row, by trying all of them."""
    for tp in range(n_pos + 1):
        for tn in range(n_neg + 1):
            c = BinaryConfusion(tp, n_neg - tn, tn, n_pos - tp)
            if all(
                getattr(c, name).defined
                and abs(getattr(c, name).value - p.value) <= p.half_step + 1e-9
                for name, p in row.printed.items()
            ):
                return True
    return False


shares = st.none() | st.integers(0, 100).map(lambda k: Printed(k / 100, 0.005))


@given(st.integers(1, 9), st.integers(1, 9), st.tuples(shares, shares, shares, shares, shares))
def test_whole_numbers_are_found_where_there_are_any(n_pos, n_neg, values):
    cases = (Cases("patients", n_pos + n_neg, n_pos),)
    row = PublishedRow("x", *values, cases=cases)
    # A predictive value of no call at all is 0/0, which a paper may print as anything.
    assume(row.printed)
    if audit_row(row).whole_numbers["patients"] is False:
        assert not brute_force(row, n_pos, n_neg)
    elif row.ppv is None and row.npv is None:
        assert brute_force(row, n_pos, n_neg)


def test_a_share_that_no_count_gives_is_named():
    # 18 of 21 is 0.857 and 19 of 21 is 0.905: nothing of 21 is 0.88.
    row = row_of("x", (0.88, 0.50), 0.005, cases=(Cases("patients", 41, 21),))
    audit = audit_row(row)
    assert audit.findings == (Finding.NO_WHOLE_NUMBERS,)
    assert not audit.consistent
    assert "sensitivity 0.880 is no share of 21 patients" in audit.words[0]
    more = (*row.cases, Cases("images", 400, 200))
    audit = audit_row(row_of("x", (0.88, 0.50), 0.005, cases=more))
    assert audit.findings == (Finding.OTHER_UNIT,)
    assert audit.consistent
    assert "200 + 200 images can" in audit.words[0]


def test_shares_that_go_alone_but_not_together_are_found():
    # 9/10 and 6/10 make 15/20, not 0.70.
    audit = audit_row(row_of("x", (0.9, 0.6, 0.70), 0.0005, cases=(Cases("patients", 20, 10),)))
    assert Finding.NO_WHOLE_NUMBERS in audit.findings
    assert "is no share" not in " ".join(audit.words)
    total_only = audit_row(row_of("x", (0.9, 0.6, 0.75), 0.0005, cases=(Cases("patients", 20),)))
    assert total_only.findings == ()


# ------------------------------------------------------------------ AUC and intervals


def test_an_auc_must_fit_its_operating_point():
    assert findings(row_of("x", (0.9, 0.9), auc=Printed(0.78))) == {"auc-impossible"}
    assert findings(row_of("x", (0.6, 0.6), auc=Printed(0.90))) == {"auc-impossible"}
    assert findings(row_of("x", (0.6, 0.6), auc=Printed(0.82))) == set()


@given(st.integers(0, 2**32 - 1), st.floats(-1.5, 1.5), st.floats(0, 2))
def test_every_real_curve_holds_its_points(seed, cut, apart):
    rng = np.random.default_rng(seed)
    truth = np.arange(60) % 3 == 0
    scores = np.round(rng.normal(size=60) + apart * truth, 1)
    c = confusion_at(truth, scores, cut)
    area = delong(truth, scores).value
    row = row_of(
        "x",
        [round(m.value, 3) for m in (c.sensitivity, c.specificity)],
        auc=Printed(round(area, 3)),
    )
    assert findings(row) <= {"single-point-auc"}


def interval(low, high, digits=2):
    half = 0.5 * 10**-digits
    return Printed(round(low, digits), half), Printed(round(high, digits), half)


def test_intervals_that_lean_or_miss_their_value_are_found():
    def of(low, high):
        return findings(
            PublishedRow("x", auc=Printed(0.82), intervals={"auc": interval(low, high)})
        )

    assert of(0.70, 0.83) == of(0.72, 0.83) == {"lopsided-interval"}
    assert of(0.85, 0.90) == of(0.70, 0.81) == {"value-outside-interval"}
    assert of(0.75, 0.89) == of(0.70, 0.90) == of(0.72, 1.0) == set()


@given(st.integers(10, 400), st.data(), st.sampled_from([clopper_pearson, wilson]))
def test_intervals_of_real_shares_pass(n, data, method):
    k = data.draw(st.integers(1, n - 1))
    row = PublishedRow(
        "x",
        sensitivity=Printed(round(k / n, 3)),
        intervals={"sensitivity": interval(*method(k, n), digits=3)},
        cases=(Cases("patients", 2 * n, n),),
    )
    assert findings(row) == set()


@given(st.integers(0, 2**32 - 1), st.integers(30, 200), st.floats(0.4, 1.8))
def test_intervals_of_real_areas_pass(seed, n, apart):
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 3 == 0
    e = delong(truth, rng.normal(size=n) + apart * truth)
    assume(e.high < 0.99)
    row = PublishedRow(
        "x",
        auc=Printed(round(e.value, 3)),
        intervals={"auc": interval(e.low, e.high, digits=3)},
        cases=(Cases("patients", n, int(truth.sum())),),
    )
    assert findings(row) == set()


@pytest.mark.parametrize("n", [40, 181, 1000])
def test_a_hanley_mcneil_interval_tells_its_cases(n):
    positive = n // 3
    low, high = hanley_mcneil_interval(0.8, positive, n - positive)
    cases = (Cases("patients", n, positive), Cases("images", 60 * n, 20 * n))
    row = PublishedRow(
        "x", auc=Printed(0.8), intervals={"auc": interval(low, high, 3)}, cases=cases
    )
    (width,) = audit_row(row).widths
    assert width.implied[0] <= n + 2
    assert width.implied[1] >= n - 2
    assert width.implied[1] < 1.3 * width.implied[0]
    assert width.fits == ("patients",)
    assert width.expected["patients"] == pytest.approx((low, high))
    assert "width-disagrees" in findings(
        PublishedRow(
            "x", auc=Printed(0.8), intervals=row.intervals, cases=(Cases("images", 60 * n, 20 * n),)
        )
    )


def test_two_units_in_one_row_are_found():
    """P2: the interval of 181 patients beside predictive values of 9,794 images."""
    row = row_of(
        "fused", P2["fused"], intervals={"auc": interval(0.83, 0.93)}, cases=(PATIENTS, IMAGES)
    )
    audit = audit_row(row)
    assert audit.findings[-1] is Finding.UNITS_MIXED
    assert "as wide as that of the patients" in audit.words[-1]
    assert "0.633 positive cases, as among the images" in audit.words[-1]


# ------------------------------------------------------------------ two places of one paper


def test_swapped_rows_are_found_and_equal_ones_are_not():
    def paper(source, first, second):
        return [row_of("A", first, source=source), row_of("B", second, source=source)]

    one, two = (0.802, 0.825), (0.778, 0.827)
    notes = compare_sources([*paper("abstract", one, two), *paper("table", two, one)])
    assert [(n.finding.value, n.names) for n in notes] == [
        ("sources-disagree", ("A",)),
        ("sources-disagree", ("B",)),
        ("swapped", ("A", "B")),
    ]
    assert notes[2].words.endswith("abstract and table: sensitivity, specificity")
    assert compare_sources([*paper("abstract", one, two), *paper("table", one, two)]) == ()
    coarse = [row_of("A", (0.80, 0.83), 0.005, source="abstract"), row_of("A", one, source="table")]
    assert compare_sources(coarse) == (), "rounding is no difference"
