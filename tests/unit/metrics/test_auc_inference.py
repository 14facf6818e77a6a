"""DeLong and clustered AUC: by hand, against R pROC where it is installed, and by properties."""

from __future__ import annotations

import csv
import io
import math
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.auc_inference import (
    Alternative,
    Scale,
    clustered_auc,
    clustered_covariance,
    delong,
    delong_covariance,
    equal_aucs,
    hanley_mcneil_interval,
    mean_auc,
    paired_clustered_auc,
    paired_delong,
    patient_means,
    unpaired_delong,
)
from renalkit.metrics.bootstrap import Auc, BootstrapPlan, MeanOfStatistics, cluster_bootstrap
from renalkit.metrics.classification import auc


def brute_covariance(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """DeLong 1988 eq. 4-6 written out with the kernel of every pair."""
    pos, neg = scores[:, truth == 1], scores[:, truth == 0]
    psi = (pos[:, :, None] > neg[:, None, :]) + 0.5 * (pos[:, :, None] == neg[:, None, :])
    s10 = np.atleast_2d(np.cov(psi.mean(axis=2)))
    s01 = np.atleast_2d(np.cov(psi.mean(axis=1)))
    return s10 / pos.shape[1] + s01 / neg.shape[1]


@st.composite
def two_systems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n_pos, n_neg = draw(st.integers(2, 12)), draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    truth = rng.permutation(np.repeat([1, 0], [n_pos, n_neg]))
    return truth, rng.integers(-4, 5, (2, truth.size)) + truth


@given(two_systems())
@settings(deadline=None)
def test_delong_covariance_is_that_of_all_pairs(cases):
    truth, scores = cases
    aucs, cov = delong_covariance(truth, scores)
    assert aucs == pytest.approx([auc(truth, s) for s in scores], abs=1e-12)
    np.testing.assert_allclose(cov, brute_covariance(truth, scores), atol=1e-12)


@given(two_systems(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_one_row_per_group_is_delong_exactly_in_any_order(cases, random):
    truth, scores = cases
    order = list(range(truth.size))
    random.shuffle(order)
    keys = np.array([f"p{k}" for k in order])
    aucs, cov = clustered_covariance(truth[order], scores[:, order], keys)
    want, delongs = delong_covariance(truth, scores)
    np.testing.assert_allclose(aucs, want, atol=1e-12)
    np.testing.assert_allclose(cov, delongs, atol=1e-12)


@given(two_systems(), st.integers(1, 4))
@settings(deadline=None)
def test_repeating_every_row_of_a_patient_adds_no_certainty(cases, times):
    truth, scores = cases
    want = delong_covariance(truth, scores)[1]
    repeated = np.repeat(scores, times, axis=1)
    groups = np.repeat(np.arange(truth.size), times)
    cov = clustered_covariance(np.repeat(truth, times), repeated, groups)[1]
    np.testing.assert_allclose(cov, want, atol=1e-12)


def test_small_example_by_hand():
    """Positives 1, 3, 5 and negatives 0, 2, 2: placements (1/3, 1, 1) and (1, 2/3, 2/3)."""
    truth = np.array([1, 1, 1, 0, 0, 0])
    scores = np.array([1.0, 3, 5, 0, 2, 2])
    aucs, cov = delong_covariance(truth, scores)
    assert aucs[0] == pytest.approx(7 / 9, abs=1e-12)
    by_hand = (4 / 27) / 3 + (1 / 27) / 3  # sample variances of the placements over class sizes
    assert cov[0, 0] == pytest.approx(by_hand, abs=1e-12)
    e = delong(truth, scores, Unit.LESION, scale=Scale.PLAIN)
    assert e.low == pytest.approx(7 / 9 - 1.959963984540054 * math.sqrt(by_hand))
    assert (e.high, e.n, e.unit, e.method) == (1.0, 6, Unit.LESION, "DeLong, plain")


def test_two_pure_clusters_each_by_hand():
    """Obuchowski 1997 written out for groups of two rows with both classes in one of them."""
    truth = np.array([1, 1, 1, 0, 0, 0])
    scores = np.array([1.0, 3, 5, 0, 2, 2])
    groups = np.array(["a", "a", "b", "b", "c", "c"])
    theta = 7 / 9
    pos = np.array([1 / 3 + 1 - 2 * theta, 1 - theta, 0])
    neg = np.array([0, 1 - theta, 4 / 3 - 2 * theta])
    want = (
        2 / 1 * (pos**2).sum() / 9 + 2 / 1 * (neg**2).sum() / 9 + 2 * 3 / 2 * (pos * neg).sum() / 9
    )
    assert clustered_covariance(truth, scores, groups)[1][0, 0] == pytest.approx(want, abs=1e-12)


def test_8_3_clustered_error_agrees_with_the_bootstrap_and_not_with_delong():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 100)
    scores = (rng.normal(size=100) + 1.2 * y)[:, None] + rng.normal(0, 0.7, (100, 60))
    truth, groups = np.repeat(y, 60), np.repeat(np.arange(100), 60)
    e = clustered_auc(truth, scores.ravel(), groups)
    boot = cluster_bootstrap(Auc(truth, scores.ravel()), groups, BootstrapPlan(n_boot=2000))
    assert 0.9 < (e.high - e.low) / (boot.high - boot.low) < 1.1
    naive = 2 * 1.96 * math.sqrt(delong_covariance(truth, scores.ravel())[1][0, 0])
    assert (e.high - e.low) / naive > 5
    assert (e.n, e.unit) == (100, Unit.PATIENT)
    assert e.method == "Obuchowski 1997, AUC over 6000 rows, logit"


@given(two_systems())
@settings(deadline=None)
def test_paired_test_turns_with_the_order_and_knows_identical_systems(cases):
    truth, (a, b) = cases
    try:
        forth, back = paired_delong(truth, a, b), paired_delong(truth, b, a)
    except StatisticUndefined:
        return
    assert forth.statistic == pytest.approx(-back.statistic)
    assert forth.p_value == pytest.approx(back.p_value)
    assert forth.difference.low == pytest.approx(-back.difference.high)
    same = paired_delong(truth, a, np.exp(a / 3))
    assert (same.statistic, same.p_value) == (0, 1)
    greater = paired_delong(truth, a, b, Alternative.GREATER).p_value
    less = paired_delong(truth, a, b, Alternative.LESS).p_value
    assert greater + less == pytest.approx(1)
    assert min(greater, less) == pytest.approx(forth.p_value / 2, abs=1e-12)
    groups = np.arange(truth.size)
    clustered = paired_clustered_auc(truth, (a, b), groups)
    assert clustered.statistic == pytest.approx(forth.statistic, abs=1e-9)


def test_complete_separation_is_not_certainty():
    truth, scores = np.array([0, 0, 0, 1, 1, 1, 1]), np.arange(7.0)
    e = delong(truth, scores)
    assert (e.value, e.high) == (1, 1)
    assert e.low == pytest.approx(0.025 ** (1 / 3))
    assert e.method == "exact bound at complete separation"
    down = delong(truth, -scores)
    assert (down.low, down.value, down.high) == (0, 0, pytest.approx(1 - 0.025 ** (1 / 3)))
    assert delong(truth, scores, scale=Scale.PLAIN) == e
    parts = [(truth, scores), (np.arange(7) > 4, scores)]
    assert mean_auc(parts).low == pytest.approx(0.025 ** (1 / 2))  # two cases in the smaller class


def test_a_constant_score_has_an_auc_without_interval():
    truth, noisy = np.repeat([0, 1], 5), np.array([1.0, 5, 2, 6, 3, 4, 7, 9, 8, 10])
    for e in (delong(truth, np.ones(10)), clustered_auc(truth, np.ones(10), np.arange(10) // 2)):
        assert e.value == 0.5
        assert math.isnan(e.low)
        assert e.method.startswith("no interval: the AUC has no variance")
    # Against it the other system is tested for being better than chance.
    pair, variance = paired_delong(truth, noisy, np.ones(10)), delong_covariance(truth, noisy)[1]
    want = (pair.first.value - 0.5) / math.sqrt(variance[0, 0])
    assert pair.statistic == pytest.approx(want, abs=1e-12)


def test_complete_separation_of_rows_rests_on_pairs_of_patients():
    """Patients a, b, c with rows of both classes: only one pair can be made without sharing."""
    truth, scores = np.array([0, 0, 0, 1, 1, 1]), np.arange(6.0)
    mixed = clustered_auc(truth, scores, np.array(list("abcabc")))
    assert (mixed.low, mixed.value, mixed.high, mixed.n) == (pytest.approx(0.025), 1, 1, 3)
    pure = clustered_auc(truth, scores, np.array(list("aabccd")))
    assert pure.low == pytest.approx(0.025 ** (1 / 2))


def test_logit_interval_by_hand():
    """AUC 7/9, variance 5/81: on the logit scale the standard error is that over A (1 - A)."""
    truth, scores = np.array([1, 1, 1, 0, 0, 0]), np.array([1.0, 3, 5, 0, 2, 2])
    e = delong(truth, scores)
    variance = (4 / 27) / 3 + (1 / 27) / 3
    half = 1.959963984540054 * math.sqrt(variance) / (7 / 9 * 2 / 9)
    ends = [1 / (1 + math.exp(-(math.log(3.5) + sign * half))) for sign in (-1, 1)]
    assert (e.value, e.low, e.high) == pytest.approx((7 / 9, *ends), abs=1e-12)
    assert e.method == "DeLong, logit"
    turned = delong(1 - truth, scores)
    assert (turned.low, turned.high) == pytest.approx((1 - e.high, 1 - e.low), abs=1e-12)
    rows = clustered_auc(truth, scores, np.arange(6))
    assert (rows.low, rows.high) == pytest.approx((e.low, e.high), abs=1e-12)
    assert rows.method.endswith("over 6 rows, logit")


@given(two_systems())
@settings(deadline=None)
def test_intervals_hold_the_value_and_stay_within_0_and_1(cases):
    truth, (scores, _) = cases
    for groups in (np.arange(truth.size), np.arange(truth.size) // 2):
        for scale in Scale:
            try:
                e = clustered_auc(truth, scores, groups, scale=scale)
            except StatisticUndefined:
                continue
            if math.isnan(e.low):
                assert e.method.startswith("no interval")
            else:
                assert 0 <= e.low <= e.value <= e.high <= 1


@given(two_systems(), st.integers(1, 3))
@settings(deadline=None)
def test_mean_of_copies_of_an_auc_is_that_auc(cases, rows):
    truth, (scores, _) = cases
    t, g = np.repeat(truth, rows), np.repeat(np.arange(truth.size), rows)
    s = np.repeat(scores, rows) + np.arange(t.size) % 2
    try:
        wanted = [delong(truth, scores), clustered_auc(t, s, g)]
    except StatisticUndefined:
        return
    assert wanted == [mean_auc([(truth, scores)]), mean_auc([(t, s)], g)]
    copies = [mean_auc([(truth, scores)] * 3), mean_auc([(t, s)] * 3, g)]
    for want, one in zip(wanted, copies, strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((want.value, want.low, want.high))
        assert one.n == want.n


@pytest.mark.parametrize("frames", [1, 6])
def test_macro_interval_agrees_with_resampled_patients(frames):
    """Three classes of 50 patients: widths on the plain scale within 10 % of the bootstrap's."""
    rng = np.random.default_rng(5)
    patient = np.repeat(np.arange(150), frames)
    truth = patient % 3
    level = np.eye(3)[np.arange(150) % 3] + rng.normal(size=(150, 3))
    scores = level[patient] + rng.normal(0, 0.5, (patient.size, 3))
    parts = [((truth == k).astype(int), scores[:, k]) for k in range(3)]
    e = mean_auc(parts, None if frames == 1 else patient, scale=Scale.PLAIN)
    mean = MeanOfStatistics(tuple(Auc(t, s) for t, s in parts))
    boot = cluster_bootstrap(mean, patient, BootstrapPlan(n_boot=2000))
    assert e.value == pytest.approx(boot.value, abs=1e-12)
    assert 0.9 < (e.high - e.low) / (boot.high - boot.low) < 1.1
    assert e.n == 150


def test_patient_means_are_one_row_per_patient():
    truth = np.array([1, 0, 1, 0, 0])
    scores = np.array([1.0, 2, 4, 3, 5])
    t, s = patient_means(truth, scores, np.array(["b", "a", "b", "c", "a"]))
    assert t.tolist() == [False, True, False]
    assert s.tolist() == [3.5, 2.5, 3]
    with pytest.raises(StatisticUndefined, match="1 patients have rows of both classes"):
        patient_means(truth, scores, np.array([0, 0, 1, 2, 3]))


def test_equality_of_two_is_the_paired_test():
    rng = np.random.default_rng(3)
    truth = np.repeat([0, 1], 30)
    scores = rng.normal(size=(3, 60)) + truth
    pair, two = paired_delong(truth, *scores[:2]), equal_aucs(truth, scores[:2])
    assert (two.statistic, two.df) == (pytest.approx(pair.statistic**2), 1)
    assert two.p_value == pytest.approx(pair.p_value)
    assert two.aucs == (pair.first, pair.second)
    three = equal_aucs(truth, scores)
    assert three.df == 2
    turned = equal_aucs(truth, scores[::-1])  # whichever system is the first
    assert turned.statistic == pytest.approx(three.statistic)
    rows = equal_aucs(truth, scores, np.arange(60))
    assert rows.statistic == pytest.approx(three.statistic)


def test_copies_of_a_system_take_no_degree_of_freedom():
    rng = np.random.default_rng(4)
    truth = np.repeat([0, 1], 20)
    first, second = rng.normal(size=(2, 40)) + truth
    alone = equal_aucs(truth, np.stack([first, second]))
    copied = equal_aucs(truth, np.stack([first, np.exp(first), second]))
    assert (copied.df, copied.statistic) == (1, pytest.approx(alone.statistic))
    same = equal_aucs(truth, np.stack([first, 2 * first]))
    assert (same.df, same.statistic, same.p_value) == (0, 0, 1)
    apart = np.repeat([0.0, 1.0], 20)
    with pytest.raises(StatisticUndefined, match="no variance"):
        equal_aucs(truth, np.stack([apart, np.ones(40)]))


def test_equality_holds_its_level():
    """500 cohorts of three equal systems: 5 % of p-values below 0.05, binomial limits at 1e-5."""
    rng = np.random.default_rng()
    truth = np.repeat([0, 1], 40)
    below = 0
    for _ in range(500):
        scores = rng.normal(size=80) + truth + rng.normal(size=(3, 80))
        below += equal_aucs(truth, scores).p_value < 0.05
    assert 8 <= below <= 52


def test_hanley_mcneil_gives_the_intervals_printed_for_patients():
    """8.7: 100 malignant / 81 benign, and 26 high / 74 low grade patients."""
    assert hanley_mcneil_interval(0.877, 100, 81) == pytest.approx((0.827, 0.927), abs=5e-4)
    assert hanley_mcneil_interval(0.909, 26, 74) == pytest.approx((0.830, 0.988), abs=5e-4)
    with pytest.raises(ValueError, match="AUC 1.2"):
        hanley_mcneil_interval(1.2, 3, 3)


def refused_calls():
    one_positive = (np.array([0, 0, 1]), np.array([1.0, 2, 3]))
    t, s = np.array([0, 1, 0, 1]), np.array([1.0, 2, 3, 4])
    return [
        (lambda: delong(*one_positive), "1 positive and 2 negative"),
        (lambda: delong(t, s, Unit.FRAME), "frames as independent"),
        (lambda: delong(t, np.array([1, 2, math.nan, 3])), "NaN"),
        (lambda: paired_delong(t, s, s[:3]), "4 and 3 scores"),
        (lambda: paired_delong(t, t, np.ones(4)), "no variance"),
        (lambda: unpaired_delong((t, np.arange(4) + 9 * t), (t, np.arange(4) + 9 * t)), "both AUC"),
        (lambda: clustered_auc(t, s, np.zeros(4)), "1 patients with positive"),
        (lambda: mean_auc([(t, s), (np.array([0, 0, 0, 1]), s)]), "from 1 patients with positive"),
        (lambda: clustered_auc(t, s, np.zeros(3)), "groups of shape"),
        (lambda: clustered_auc(t, s, np.array([0, math.nan, math.nan, 3])), "2 of 4 rows have no"),
        (lambda: clustered_auc(t, s, np.array(["a", None, "b", "c"])), "1 of 4 rows have no"),
    ]


@pytest.mark.parametrize("place", range(11))
def test_undefined_statistics_are_refused(place):
    call, message = refused_calls()[place]
    with pytest.raises(StatisticUndefined, match=message):
        call()


# ---------------------------------------------------------------- 8.1, against R

R_DATA = (
    "suppressMessages(library(pROC)); data(aSAH); "
    "write.csv(aSAH[, c('outcome', 'wfns', 's100b', 'ndka')], row.names=FALSE)"
)


@pytest.fixture(scope="module")
def asah() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """113 patients from the installed pROC package; the data are not part of this repository."""
    rscript = shutil.which("Rscript")
    if rscript is None:
        pytest.skip("NOT CHECKED against R: Rscript is not installed")
    done = subprocess.run([rscript, "-e", R_DATA], capture_output=True, text=True, timeout=100)
    if done.returncode:
        pytest.skip("NOT CHECKED against R: its package pROC is not installed")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(rows) == 113
    truth = np.array([r["outcome"] == "Poor" for r in rows])
    return truth, {k: np.array([float(r[k]) for r in rows]) for k in ("wfns", "s100b", "ndka")}


def test_8_1_aucs_covariances_and_intervals(asah):
    truth, markers = asah
    aucs, cov = delong_covariance(truth, np.stack(list(markers.values())))
    assert aucs == pytest.approx([0.823678861788618, 0.731368563685637, 0.611957994579946], 1e-12)
    assert np.diag(cov) == pytest.approx([0.00146991470882, 0.00266868245717, 0.00319081054939])
    off = [cov[0, 1], cov[0, 2], cov[1, 2]]
    assert off == pytest.approx(
        [0.00119615567376754, -0.000532967856762438, -0.000756164938056579], rel=1e-10
    )
    e = delong(truth, markers["ndka"], scale=Scale.PLAIN)
    assert (e.low, e.high) == pytest.approx((0.501244999271703, 0.722670989888189), rel=1e-10)
    e = delong(truth, markers["wfns"], scale=Scale.PLAIN)
    assert (e.low, e.high) == pytest.approx((0.7485, 0.8988), abs=5e-5)


@pytest.mark.parametrize(
    ("first", "second", "z", "p"),
    [
        ("wfns", "s100b", 2.20898359144091, 0.0271757822291882),
        ("wfns", "ndka", 2.79777591868904, 0.00514557970691098),
        ("ndka", "s100b", -1.39077002573558, 0.164295175223054),
    ],
)
def test_8_1_paired_tests(asah, first, second, z, p):
    truth, markers = asah
    c = paired_delong(truth, markers[first], markers[second])
    assert (c.statistic, c.p_value) == pytest.approx((z, p), rel=1e-9)


def test_8_1_one_sided_unpaired_and_difference(asah):
    truth, m = asah
    c = paired_delong(truth, m["wfns"], m["s100b"], Alternative.GREATER)
    assert c.p_value == pytest.approx(0.0135878911145941, rel=1e-9)
    interval = (c.difference.low, c.difference.high)
    assert interval == pytest.approx((0.0104061769564846, 0.174214419249478), rel=1e-9)
    u = unpaired_delong((truth, m["wfns"]), (truth, m["s100b"]))
    assert (u.statistic, u.p_value) == pytest.approx(
        (1.43490640926908, 0.152825378808796), rel=1e-9
    )
