import cv2
import numpy as np
import pytest

from renalkit.phantom.covariates import draw_covariates
from renalkit.phantom.readings import READERS, Reader, draw_outline, read_case


def auc(scores, labels):
    difference = np.subtract.outer(scores[labels], scores[~labels])
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def readings(readers, n=3000, seed=1):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2 == 1
    evidence = rng.standard_normal(n)
    table = [
        [
            read_case(r, positive=bool(y), evidence=float(c), rng=rng)
            for y, c in zip(labels, evidence, strict=True)
        ]
        for r in readers
    ]
    return labels, table


def test_readers_have_their_skill_and_correlation():
    readers = [Reader("a", "g", 1, auc=0.75), Reader("b", "g", 1, auc=0.75, correlation=0.6)]
    labels, table = readings(readers)
    scores = np.array([[one.score for one in row] for row in table], float)
    for row in scores:
        assert auc(row, labels) == pytest.approx(0.75, abs=0.03)
    # The score is a monotone bent of the variable; ranks keep the correlation nearly.
    ranks = scores[:, labels].argsort().argsort()
    assert np.corrcoef(ranks)[0, 1] == pytest.approx(0.6, abs=0.06)


def test_votes_and_confidence_follow_the_score():
    _, table = readings(READERS[:1], n=300)
    for one in table[0]:
        assert one.vote == (one.score > 50) or one.score == 50
        assert 1 <= one.confidence <= 5
        assert 0 <= one.score <= 100


def test_senior_readers_are_better_on_average():
    means = {
        group: np.mean([r.auc for r in READERS if r.group == group])
        for group in ("junior", "senior")
    }
    assert means == pytest.approx({"junior": 0.740, "senior": 0.794}, abs=0.002)


def test_outlines_err_as_much_as_the_reader():
    mask = cv2.circle(np.zeros((200, 200), np.uint8), (90, 110), 40, 1, -1).astype(bool)

    def dice(reader, seed):
        drawn = draw_outline(mask, reader, np.random.default_rng(seed))
        return 2 * (drawn & mask).sum() / (drawn.sum() + mask.sum())

    junior, senior = (np.mean([dice(READERS[i], seed) for seed in range(40)]) for i in (0, 5))
    assert 0.8 < junior < senior < 0.99


def test_empty_truth_has_an_empty_outline():
    empty = np.zeros((20, 30), bool)
    assert not draw_outline(empty, READERS[0], np.random.default_rng(0)).any()


@pytest.mark.parametrize("target", ["malignancy", "grade"])
def test_covariates_say_little_about_the_class(target):
    rng = np.random.default_rng(5)
    labels = np.arange(1200) % 2 == 1
    rows = [draw_covariates(target, positive=bool(y), rng=rng).row() for y in labels]
    assert len({tuple(row) for row in rows}) == 1
    for name, value in rows[0].items():
        if isinstance(value, str):
            continue
        found = auc(np.array([row[name] for row in rows], float), labels)
        assert abs(found - 0.5) < 0.22, name


def test_covariates_are_plausible():
    rng = np.random.default_rng(6)
    drawn = [draw_covariates("malignancy", positive=True, rng=rng) for _ in range(400)]
    assert all(18 <= one.age_years <= 90 for one in drawn)
    assert np.mean([one.age_years for one in drawn]) == pytest.approx(58.4, abs=2.5)
    assert np.mean([one.sex == "M" for one in drawn]) == pytest.approx(0.70, abs=0.08)
    assert all(value > 0 for one in drawn for value in one.laboratory.values())
