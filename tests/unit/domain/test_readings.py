"""Readings: what a table of them keeps true, and the arrays made from it."""

from __future__ import annotations

import numpy as np
import pytest

from renalkit.domain.geometry import Box
from renalkit.domain.readings import (
    Outline,
    Reader,
    Reading,
    ReadingTable,
    ReadingValue,
    ScoreScale,
    by_place,
)

READERS = (Reader("j1", "junior", 5), Reader("s1", "senior", 12))


def table(*readings: Reading, truth: dict[str, bool] | None = None) -> ReadingTable:
    return ReadingTable(READERS, ("a", "b", "c"), readings, truth)


FULL = table(
    *(
        Reading(case, reader.name, arm, score=10.0 * i + j, vote=i > 0)
        for arm in ("without AI", "with AI")
        for i, case in enumerate("abc")
        for j, reader in enumerate(READERS)
    ),
    truth={"a": False, "b": True, "c": True},
)


def test_values_come_by_arm_reader_and_case():
    scores = FULL.values(ReadingValue.SCORE)
    assert FULL.arms == ("without AI", "with AI")
    assert scores.shape == (2, 2, 3)
    assert scores[1, 1].tolist() == [1, 11, 21]
    assert FULL.values(ReadingValue.VOTE, ["with AI"])[0, 0].tolist() == [0, 1, 1]
    assert FULL.truths().tolist() == [False, True, True]
    assert FULL.missing(ReadingValue.SCORE) == ()


def test_what_was_not_read_is_nan_and_listed():
    some = table(
        Reading("a", "j1", vote=True), Reading("a", "s1", vote=False), Reading("b", "s1", score=3)
    )
    assert np.isnan(some.values(ReadingValue.VOTE)).sum() == 4
    assert ("b", "j1", "") in some.missing(ReadingValue.VOTE)
    assert some.has(ReadingValue.SCORE)
    kept, left_out = some.crossed(ReadingValue.VOTE)
    assert (kept.cases, left_out) == (("a",), ("b", "c"))
    assert kept.missing(ReadingValue.VOTE) == ()


def test_groups_keep_all_cases():
    senior = FULL.of_group("senior")
    assert FULL.groups == ("junior", "senior")
    assert [r.name for r in senior.readers] == ["s1"]
    assert senior.cases == FULL.cases
    assert senior.values(ReadingValue.SCORE).shape == (2, 1, 3)


def test_cases_get_pseudonyms():
    new = FULL.renamed({"a": "p-3", "b": "p-1", "c": "p-2", "d": "p-9"})
    assert new.cases == ("p-3", "p-1", "p-2")
    assert new.truth == {"p-3": False, "p-1": True, "p-2": True}
    np.testing.assert_array_equal(new.values(ReadingValue.SCORE), FULL.values(ReadingValue.SCORE))
    with pytest.raises(ValueError, match="1 cases without a new name, the first 'c'"):
        FULL.renamed({"a": "x", "b": "y"})
    with pytest.raises(ValueError, match="twice"):
        FULL.renamed({"a": "x", "b": "x", "c": "y"})


def test_votes_are_made_only_at_a_threshold_that_is_named():
    votes = FULL.voting_at(11).values(ReadingValue.VOTE, ["with AI"])
    assert votes[0].tolist() == [[0, 0, 1], [0, 1, 1]]
    assert not table(Reading("a", "j1", vote=True)).voting_at(1).readings


@pytest.mark.parametrize(
    "make",
    [
        lambda: Reading("a", "j1"),
        lambda: Reading("a", "j1", score=float("nan")),
        lambda: Reader(" x"),
        lambda: Reader("x", years=-1),
        lambda: ScoreScale(5, 1),
        lambda: ScoreScale(1, 5, 9),
        lambda: table(Reading("z", "j1", vote=True)),
        lambda: table(Reading("a", "nobody", vote=True)),
        lambda: table(Reading("a", "j1", vote=True), Reading("a", "j1", vote=False)),
        lambda: table(truth={"a": True}),
        lambda: ReadingTable((*READERS, READERS[0]), ("a",), ()),
        lambda: ReadingTable(
            READERS, ("a",), (Reading("a", "j1", score=6),), scale=ScoreScale(1, 5)
        ),
        lambda: FULL.values(ReadingValue.SCORE, ["no such arm"]),
        lambda: table().truths(),
    ],
)
def test_what_cannot_be(make):
    with pytest.raises(ValueError):  # noqa: PT011  the type itself is what is tested
        make()


def test_outlines_come_together_by_lesion():
    box = Box(1, 2, 3, 4)
    a, b = (Outline(r, "f.png", 0, "1", box) for r in ("j1", "s1"))
    other = Outline("j1", "e.png", 0, "1", box)
    found = by_place([b, a, other])
    assert list(found) == [("e.png", 0, "1"), ("f.png", 0, "1")]
    assert set(found["f.png", 0, "1"]) == {"j1", "s1"}
    with pytest.raises(ValueError, match="twice"):
        by_place([a, a])
