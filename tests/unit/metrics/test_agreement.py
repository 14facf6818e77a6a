"""Agreement of readers: published examples, other software's digits, and properties."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.domain.geometry import Box, MaskRLE
from renalkit.domain.prediction import Unit
from renalkit.domain.readings import Outline
from renalkit.errors import InputRefused, StatisticUndefined
from renalkit.metrics.agreement import (
    DifferenceScale,
    IccForm,
    KappaWeights,
    bland_altman,
    cohen_kappa,
    fleiss_kappa,
    icc,
    mean_squares,
    outline_dice,
    pairwise_dice,
    pairwise_kappas,
    percent_agreement,
    reader_dice,
)
from renalkit.metrics.classification import confusion_matrix

NAN = float("nan")

# Shrout and Fleiss 1979, table 2: six targets, four judges.
JUDGES = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
)
# Made by R psych 2.2.9, ICC(sf, lmer = FALSE): value, F, df2, p, low, high.
PSYCH = {
    IccForm.ONE_SINGLE: (
        0.165741768405,
        1.79467849224,
        18,
        0.16476880834,
        -0.132932324875,
        0.722560062328,
    ),
    IccForm.TWO_SINGLE: (
        0.289763779528,
        11.0272479564,
        15,
        0.000134566516,
        0.0187865133747,
        0.761084369649,
    ),
    IccForm.THREE_SINGLE: (
        0.714840714841,
        11.0272479564,
        15,
        0.000134566516,
        0.342464765034,
        0.945858259955,
    ),
    IccForm.ONE_MEAN: (
        0.442797133679,
        1.79467849224,
        18,
        0.16476880834,
        -0.884442155238,
        0.912415420341,
    ),
    IccForm.TWO_MEAN: (
        0.620050547599,
        11.0272479564,
        15,
        0.000134566516,
        0.0711368153025,
        0.927232040168,
    ),
    IccForm.THREE_MEAN: (
        0.909315542377,
        11.0272479564,
        15,
        0.000134566516,
        0.675674713816,
        0.985891678169,
    ),
}
# Fleiss, Cohen and Everitt 1969, table 1 as counts of 100.
DIAGNOSES = np.array([[53, 5, 2], [11, 14, 5], [1, 6, 3]])
# Worked example of Fleiss' kappa with 10 cases, 14 readers, 5 classes: kappa 0.210.
FOURTEEN = np.array(
    [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]
)  # fmt: skip


def spread_out(counts: np.ndarray) -> np.ndarray:
    """Counts per class (n, C) as classes per reader (n, k)."""
    return np.array([np.repeat(np.arange(counts.shape[1]), row) for row in counts])


def test_8_4_mean_squares_of_shrout_and_fleiss():
    ms = mean_squares(JUDGES)
    assert (ms.n, ms.k) == (6, 4)
    assert [ms.between, ms.within, ms.readers, ms.error] == pytest.approx(
        [11.241667, 6.263889, 32.486111, 1.019444], abs=1e-6
    )


@pytest.mark.parametrize("form", list(IccForm))
def test_8_4_all_six_forms_with_interval_and_test_agree_with_psych(form: IccForm):
    found, want = icc(JUDGES, form), PSYCH[form]
    e = found.estimate
    got = (e.value, found.f, found.df2, found.p_value, e.low, e.high)
    assert got == pytest.approx(want, rel=1e-9)
    assert (found.df1, e.n, e.unit, e.level) == (5, 6, Unit.PATIENT, 0.95)
    assert form.value in e.method


def test_8_4_printed_intervals_of_the_paper():
    text = {f: icc(JUDGES, f).estimate.text(2) for f in IccForm}
    assert text == {
        IccForm.ONE_SINGLE: "0.17 (-0.13 to 0.72)",
        IccForm.TWO_SINGLE: "0.29 (0.02 to 0.76)",
        IccForm.THREE_SINGLE: "0.71 (0.34 to 0.95)",
        IccForm.ONE_MEAN: "0.44 (-0.88 to 0.91)",
        IccForm.TWO_MEAN: "0.62 (0.07 to 0.93)",
        IccForm.THREE_MEAN: "0.91 (0.68 to 0.99)",
    }


@given(st.integers(0, 2**32 - 1), st.integers(3, 12), st.integers(2, 6))
@settings(deadline=None)
def test_icc_ignores_scale_order_and_for_form_three_the_readers_bias(seed, n, k):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 1)) + rng.normal(size=(n, k)) + rng.normal(size=k)
    for form in IccForm:
        try:
            e = icc(x, form).estimate
        except StatisticUndefined:
            assert form in (IccForm.TWO_SINGLE, IccForm.TWO_MEAN)
            continue
        if math.isnan(e.low):
            assert e.value < 0
            continue
        assert e.low <= e.value + 1e-9
        assert e.value <= e.high + 1e-9
        moved = icc(7 - 3 * rng.permutation(rng.permutation(x, axis=1), axis=0), form).estimate
        assert (moved.value, moved.low, moved.high) == pytest.approx((e.value, e.low, e.high))
    biased = icc(x + rng.normal(size=k), IccForm.THREE_SINGLE).estimate
    assert biased.value == pytest.approx(icc(x, IccForm.THREE_SINGLE).estimate.value)


@pytest.mark.parametrize("form", list(IccForm))
def test_complete_agreement_is_one_without_an_interval(form: IccForm):
    e = icc(np.repeat([[1.0], [2], [5]], 3, axis=1), form).estimate
    assert e.value == 1
    assert math.isnan(e.low)
    assert e.method.startswith("no interval: the readers do not disagree")


def test_a_constant_offset_hurts_absolute_agreement_only():
    x = np.array([[1.0, 3], [2, 4], [6, 8], [9, 11]])
    assert icc(x, IccForm.THREE_SINGLE).estimate.value == 1
    two = icc(x, IccForm.TWO_SINGLE).estimate
    assert two.low < two.value < 1
    assert two.high < 1


@pytest.mark.parametrize(
    ("ratings", "words"),
    [
        (np.full((4, 3), 2.0), "all 12 ratings are 2"),
        (np.ones((1, 3)), "shape"),
        (np.ones((3, 1)), "shape"),
        (np.ones(5), "shape"),
        (np.array([[1.0, np.nan], [2, 3]]), "1 of 4 ratings are missing"),
    ],
)
def test_icc_refuses(ratings: np.ndarray, words: str):
    with pytest.raises(StatisticUndefined, match=words):
        icc(ratings, IccForm.TWO_SINGLE)


def test_icc_refuses_frames_and_a_mean_of_nothing():
    with pytest.raises(StatisticUndefined, match="frames"):
        icc(JUDGES, IccForm.TWO_SINGLE, Unit.FRAME)
    opposed = np.array([[0.0, 1], [1, 0], [0, 1]])
    assert icc(opposed, IccForm.ONE_SINGLE).estimate.value == -1
    with pytest.raises(StatisticUndefined, match="same mean rating"):
        icc(opposed, IccForm.ONE_MEAN)


# Made by statsmodels 0.15.0, cohens_kappa; R vcd 1.4-11 gives the same kappa and error.
STATSMODELS = {
    KappaWeights.NONE: (0.4285714285714285, 0.0759588315346638, 0.07850646665162336),
    KappaWeights.LINEAR: (0.4923076923076922, 0.07172694274347052, 0.08169795721447227),
    KappaWeights.QUADRATIC: (0.5666666666666667, 0.07872409321944325, 0.09972183534434403),
}


@pytest.mark.parametrize("weights", list(KappaWeights))
def test_cohen_kappa_and_both_errors_agree_with_statsmodels_and_vcd(weights: KappaWeights):
    k = cohen_kappa(DIAGNOSES, weights)
    got = (k.estimate.value, k.standard_error, k.null_error)
    assert got == pytest.approx(STATSMODELS[weights], rel=1e-12)
    assert k.estimate.high - k.estimate.value == pytest.approx(1.959963984540054 * got[1])
    assert k.z == pytest.approx(got[0] / got[2])
    assert weights.value in k.estimate.method


def test_two_classes_need_no_weights():
    table = np.array([[20, 5], [10, 15]])
    values = [cohen_kappa(table, w).estimate.value for w in KappaWeights]
    assert values == pytest.approx([0.4] * 3)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_kappa_is_symmetric_in_the_readers(seed):
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 9, (4, 4)) + np.eye(4, dtype=int)
    for w in KappaWeights:
        one, other = cohen_kappa(table, w), cohen_kappa(table.T, w)
        assert one.estimate.value == pytest.approx(other.estimate.value)
        assert one.standard_error == pytest.approx(other.standard_error)


def test_kappa_at_the_edges():
    whole = cohen_kappa(np.diag([5, 3]))
    assert whole.estimate.value == 1
    assert math.isnan(whole.estimate.low)
    opposed = cohen_kappa(np.array([[0, 4], [4, 0]]))
    assert opposed.estimate.value == -1
    assert "no variance" in opposed.estimate.method
    idle = cohen_kappa(np.array([[6, 4], [0, 0]]))  # the first reader always says class 0
    assert (idle.estimate.value, idle.p_value) == (0, 1)
    with pytest.raises(StatisticUndefined, match="one class for all 7 cases"):
        cohen_kappa(np.array([[7, 0], [0, 0]]))
    for odd in (np.zeros((2, 2)), np.ones((2, 3)), np.ones((1, 1)), np.array([[2, -1], [1, 2]])):
        with pytest.raises(StatisticUndefined, match="kappa"):
            cohen_kappa(odd)


def test_fleiss_kappa_of_the_worked_example():
    k = fleiss_kappa(spread_out(FOURTEEN), 5)
    assert k.observed == pytest.approx(0.378, abs=5e-4)
    assert k.expected == pytest.approx(0.213, abs=5e-4)
    assert k.estimate.value == pytest.approx(0.210, abs=5e-4)


def test_fleiss_kappa_of_two_readers_is_scotts_pi():
    rng = np.random.default_rng(4)
    x = rng.integers(0, 3, (40, 2))
    x[:20, 1] = x[:20, 0]
    table = confusion_matrix(x[:, 0], x[:, 1], 3)
    share = (table.sum(axis=0) + table.sum(axis=1)) / 80
    chance = float((share**2).sum())
    pi = (np.trace(table) / 40 - chance) / (1 - chance)
    assert fleiss_kappa(x, 3).estimate.value == pytest.approx(pi)


def test_error_of_fleiss_kappa_is_that_of_the_jackknife_over_cases():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 300)
    x = np.stack(
        [np.where(rng.random(300) < 0.6, truth, rng.integers(0, 4, 300)) for _ in range(5)], 1
    )
    left = np.array([fleiss_kappa(np.delete(x, i, 0), 4).estimate.value for i in range(300)])
    jackknife = math.sqrt(299 / 300 * ((left - left.mean()) ** 2).sum())
    assert fleiss_kappa(x, 4).standard_error == pytest.approx(jackknife, rel=0.01)


def test_null_error_of_fleiss_kappa_is_what_guessing_readers_scatter():
    rng = np.random.default_rng(1)
    values = [fleiss_kappa(rng.integers(0, 3, (50, 4)), 3).estimate.value for _ in range(800)]
    null = fleiss_kappa(rng.integers(0, 3, (50, 4)), 3).null_error
    assert np.std(values) == pytest.approx(null, rel=0.1)  # 800 draws: 4 standard errors


def test_fleiss_kappa_at_the_edges():
    assert fleiss_kappa(np.array([[0, 0, 0], [1, 1, 1], [1, 1, 1]]), 2).estimate.value == 1
    with pytest.raises(StatisticUndefined, match="one class for all 4 cases"):
        fleiss_kappa(np.zeros((4, 3)), 2)
    with pytest.raises(StatisticUndefined, match="not in the task"):
        fleiss_kappa(np.array([[0, 2], [1, 0]]), 2)
    with pytest.raises(StatisticUndefined, match="missing"):
        fleiss_kappa(np.array([[0, np.nan], [1, 0]]), 2)


def test_pairwise_kappas_name_the_readers_by_column():
    x = np.array([[0, 0, 1], [1, 1, 0], [0, 0, 1], [1, 0, 0]])
    found = pairwise_kappas(x, 2)
    assert set(found) == {(0, 1), (0, 2), (1, 2)}
    assert found[0, 1].estimate.value == pytest.approx(0.5)
    assert found[0, 2].estimate.value == -1


def test_percent_agreement_of_two_readers_is_a_proportion():
    a = percent_agreement(np.array([[0, 0], [1, 0], [1, 1], [0, 0]]), 2)
    assert a.pairwise == a.unanimous
    assert (a.pairwise.value, a.pairwise.n, a.pairwise.method) == (0.75, 4, "Clopper-Pearson")


def test_percent_agreement_of_three_readers():
    a = percent_agreement(np.array([[0, 0, 0], [0, 0, 1], [1, 1, 1], [1, 0, 1]]), 2)
    assert a.unanimous.value == 0.5
    assert a.pairwise.value == pytest.approx((1 + 1 / 3 + 1 + 1 / 3) / 4)
    all_agree = percent_agreement(np.array([[0, 0, 0], [1, 1, 1]]), 2)
    assert (all_agree.pairwise.value, all_agree.pairwise.low) == (1, all_agree.unanimous.low)
    none = percent_agreement(np.array([[0, 0, 1], [1, 0, 1]]), 2).pairwise
    assert none.value == pytest.approx(1 / 3)
    assert math.isnan(none.low)


def test_bland_altman_by_hand():
    """Differences 1, 3, 2, 2, 2: mean 2, sd sqrt(1/2); t(4) = 2.776445."""
    first = np.array([10.0, 20, 30, 40, 50])
    found = bland_altman(first, first + [1, 3, 2, 2, 2])
    sd, t = math.sqrt(0.5), 2.7764451051977987
    assert found.sd == pytest.approx(sd)
    assert found.bias.value == 2
    assert found.bias.high - 2 == pytest.approx(t * sd / math.sqrt(5))
    z = 1.959963984540054
    assert found.lower.value == pytest.approx(2 - z * sd)
    assert found.upper.value == pytest.approx(2 + z * sd)
    assert found.upper.high - found.upper.value == pytest.approx(
        t * sd * math.sqrt(1 / 5 + z**2 / 8)
    )
    assert found.bias.n == 5


def test_proportional_bias_is_found_and_is_the_regression_of_the_difference_on_the_mean():
    from scipy.stats import linregress

    rng = np.random.default_rng(3)
    first = rng.uniform(5, 50, 60)
    second = 1.2 * first + rng.normal(size=60)
    found = bland_altman(first, second)
    want = linregress((first + second) / 2, second - first)
    assert found.slope is not None
    assert (found.slope.value, found.slope_p) == pytest.approx((want.slope, want.pvalue))
    assert found.slope_p < 1e-10
    ratio = bland_altman(first, second, DifferenceScale.RATIO)
    assert ratio.bias.value == pytest.approx(1.2, abs=0.02)
    assert ratio.lower.value < 1.2 < ratio.upper.value


def test_exchanging_the_readers_turns_the_limits_round():
    rng = np.random.default_rng(5)
    a, b = rng.uniform(1, 9, (2, 20))
    one, other = bland_altman(a, b), bland_altman(b, a)
    assert one.bias.value == pytest.approx(-other.bias.value)
    assert one.lower.value == pytest.approx(-other.upper.value)
    ratio, inverse = (bland_altman(*p, DifferenceScale.RATIO) for p in ((a, b), (b, a)))
    assert ratio.upper.value == pytest.approx(1 / inverse.lower.value)


def test_bland_altman_at_the_edges():
    same = bland_altman(np.array([1.0, 2, 3]), np.array([1.0, 2, 3]))
    assert (same.bias.value, same.upper.value, same.sd, same.slope_p) == (0, 0, 0, 1)
    assert math.isnan(same.bias.low)
    level = bland_altman(np.array([1.0, 2, 3]), np.array([3.0, 2, 1]))
    assert level.slope is None
    with pytest.raises(StatisticUndefined, match="0 or negative"):
        bland_altman(np.array([0.0, 2, 3]), np.array([1.0, 2, 3]), DifferenceScale.RATIO)
    with pytest.raises(StatisticUndefined, match="three cases"):
        bland_altman(np.array([1.0, 2]), np.array([1.0, 2]))
    with pytest.raises(StatisticUndefined, match="missing"):
        bland_altman(np.array([1.0, 2, np.inf]), np.array([1.0, 2, 3]))


def test_pairwise_dice_of_masks_and_boxes():
    masks = np.zeros((3, 4, 10), bool)
    masks[0, :2, :5] = masks[1, :2, 3:8] = True
    found = pairwise_dice([*masks, masks[2]])
    assert found[:5] == pytest.approx([2 * 4 / 20, 0, 0, 0, 0])
    assert math.isnan(found[5])
    boxes = [Box(0, 0, 5, 2), Box(3, 0, 5, 2), Box(20, 20, 1, 1)]
    assert pairwise_dice(boxes) == pytest.approx([0.4, 0, 0])
    with pytest.raises(InputRefused, match="different shapes"):
        pairwise_dice([masks[0], np.zeros((2, 2), bool)])
    with pytest.raises(InputRefused, match="mask and a box"):
        pairwise_dice([masks[0], boxes[0]])


def test_reader_dice_weighs_patients_and_counts_what_is_empty():
    dice = np.array([[0.8, np.nan], [0.6, 0.6], [0.9, 0.9], [np.nan, np.nan]])
    found = reader_dice(dice, np.array(["a", "a", "b", "c"]))
    assert found.mean.value == pytest.approx((0.7 + 0.9) / 2)
    assert (found.lowest, found.pairs, found.empty, found.mean.n) == (0.6, 5, 3, 2)
    with pytest.raises(StatisticUndefined, match="no two outlines"):
        reader_dice(np.full((2, 1), np.nan), np.array([1, 2]))
    with pytest.raises(StatisticUndefined, match="patient key"):
        reader_dice(np.ones((2, 1)), np.array([1, 2, 3]))


def test_outlines_of_readers_become_dice_by_patient():
    left, wide = np.zeros((2, 4, 10), bool)
    left[:2, :5] = wide[:2, :10] = True

    def drawn(reader: str, file: str, mask: np.ndarray, patient: str) -> Outline:
        return Outline(reader, file, 0, "1", Box(0, 0, 5, 2), MaskRLE.encode(mask), patient)

    found = [
        drawn("b", "x.png", wide, "P1"),
        drawn("a", "x.png", left, "P1"),
        drawn("a", "y.png", left, "P2"),
        drawn("c", "y.png", left, "P2"),
    ]
    dice, patients, readers = outline_dice(found)
    assert (patients, readers) == (("P1", "P2"), ("a", "b", "c"))
    np.testing.assert_allclose(dice, [[2 / 3, NAN, NAN], [NAN, 1, NAN]])
    pooled = reader_dice(dice, patients)
    assert (pooled.mean.value, pooled.pairs, pooled.mean.n) == (pytest.approx(5 / 6), 2, 2)
    assert outline_dice(found, boxes=True)[0][0, 0] == 1
    bare = Outline("b", "y.png", 0, "1", Box(0, 0, 1, 1))
    with pytest.raises(InputRefused, match="'b' without mask"):
        outline_dice([*found, bare])


DATA = Path(os.environ.get("RENALKIT_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.mark.data
def test_three_real_readers_of_280_renal_tumours():
    """KiTS23: ICC(2,1) of volume 0.999, mean pairwise Dice 0.959."""
    file = DATA / "kits23_labels" / "readers.csv"
    if not file.is_file():
        pytest.skip(f"NOT TESTED ON REAL DATA: no {file} (set RENALKIT_DATA)")
    with file.open(encoding="utf-8") as text:
        rows = [r for r in csv.DictReader(text) if r["structure"] == "tumor"]
    volumes = np.array([[float(r[f"vol_ml_r{k}"]) for k in (1, 2, 3)] for r in rows])
    dice = np.array([[float(r[f"dice_{pair}"]) for pair in (12, 13, 23)] for r in rows])
    assert len(rows) == 280
    assert round(icc(volumes, IccForm.TWO_SINGLE, Unit.LESION).estimate.value, 3) == 0.999
    found = reader_dice(dice, np.array([r["case_id"] for r in rows]))
    assert dice.mean() == pytest.approx(0.959, abs=5e-4)
    assert found.mean.value == pytest.approx(0.959, abs=1e-3)
    assert (found.mean.n, found.pairs) == (251, 840)
