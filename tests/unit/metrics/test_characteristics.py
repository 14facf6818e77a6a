"""Tests of a table of patients: known answers, the choice of test, degenerate groups."""

from __future__ import annotations

from itertools import product
from math import comb, factorial, prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalkit.errors import StatisticUndefined
from renalkit.metrics import characteristics
from renalkit.metrics.characteristics import compare_categories, compare_numbers, fisher_exact

NORMAL = np.array([41.0, 47, 52, 55, 58, 60, 63, 69, 74])
SKEWED = np.array([1.0, 1.1, 1.2, 1.3, 1.5, 1.6, 2.0, 9.0, 40.0])


def test_normal_groups_have_means_and_welchs_test() -> None:
    """R: t.test(x, x + 9)."""
    found = compare_numbers([NORMAL, NORMAL + 9])
    assert found.normal
    assert found.test == "Welch's t-test"
    assert found.p_value == pytest.approx(0.08418193)
    assert found.smd == pytest.approx(9 / NORMAL.std(ddof=1))


def test_one_group_that_is_not_normal_asks_for_ranks() -> None:
    """R: wilcox.test(x, y), W = 81, p = 2 / choose(18, 9)."""
    found = compare_numbers([NORMAL, SKEWED])
    assert not found.normal
    assert found.test == "Mann-Whitney U test, exact"
    assert found.statistic == 81
    assert found.p_value == pytest.approx(2 / comb(18, 9))


def test_ties_and_many_values_use_the_normal_approximation() -> None:
    many = np.concatenate([SKEWED + k / 7 for k in range(8)])
    for groups in ([SKEWED, SKEWED], [many, many + 0.31]):
        assert "normal approximation" in compare_numbers(groups).test


def test_three_groups() -> None:
    assert compare_numbers([NORMAL, NORMAL, NORMAL + 5]).test == "Welch's analysis of variance"
    found = compare_numbers([NORMAL, SKEWED, NORMAL + 5])
    assert found.test == "Kruskal-Wallis test"
    two, three = (
        compare_numbers([NORMAL, NORMAL + 5]),
        compare_numbers([NORMAL, NORMAL, NORMAL + 5]),
    )
    assert three.smd == two.smd, "the largest of all pairs"


def test_welchs_analysis_of_two_groups_is_the_t_test() -> None:
    """F = t squared, the same p."""
    a, b = NORMAL, np.array([50.0, 55, 58, 61, 70, 71])
    f, p = characteristics._welch_anova([a, b])
    t = compare_numbers([a, b])
    assert t.statistic is not None
    assert f == pytest.approx(t.statistic**2)
    assert p == pytest.approx(t.p_value)


def test_missing_values_are_counted_and_left_out() -> None:
    found = compare_numbers([np.append(NORMAL, [np.nan, np.nan]), NORMAL + 9])
    assert [(g.n, g.missing) for g in found.groups] == [(9, 2), (9, 0)]
    assert (found.overall.n, found.overall.missing) == (18, 2)
    assert found.p_value == compare_numbers([NORMAL, NORMAL + 9]).p_value


def test_summary_of_a_group() -> None:
    (one,) = compare_numbers([np.array([1.0, 2, 3, 4])]).groups
    assert (one.median, one.q1, one.q3, one.least, one.greatest) == (2.5, 1.75, 3.25, 1, 4)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([NORMAL], "fewer than two groups"),
        ([NORMAL, np.array([])], "fewer than two groups"),
        ([NORMAL, np.array([5.0])], "fewer than two groups"),
        ([NORMAL, np.full(4, np.nan)], "fewer than two groups"),
        ([np.full(5, 2.0), np.full(4, 2.0)], "all values are equal"),
    ],
)
def test_numbers_without_a_test_say_why(groups: list[np.ndarray], words: str) -> None:
    found = compare_numbers(groups)
    assert found.p_value is None
    assert words in found.test


def test_constant_groups_that_differ() -> None:
    found = compare_numbers([np.full(5, 2.0), np.full(5, 3.0)])
    assert found.p_value is not None
    assert found.p_value < 0.05
    assert found.smd is None, "no spread to measure the difference in"


def test_values_that_are_infinite_and_no_groups_are_refused() -> None:
    with pytest.raises(StatisticUndefined, match="1 infinite values"):
        compare_numbers([np.array([1.0, np.inf])])
    with pytest.raises(ValueError, match="no group"):
        compare_numbers([])


@given(st.permutations(list(range(9))))
def test_the_order_of_patients_does_not_matter(order: list[int]) -> None:
    assert compare_numbers([NORMAL[order], SKEWED[order]]).p_value == pytest.approx(
        compare_numbers([NORMAL, SKEWED]).p_value
    )


# ------------------------------------------------------------------ categories


def test_chi_square_without_continuity_correction() -> None:
    """R: chisq.test(rbind(c(30, 20), c(25, 45)), correct = FALSE)."""
    found = compare_categories(np.array([[30, 20], [25, 45]]))
    assert found.test == "Pearson's chi-square test"
    assert found.p_value == pytest.approx(0.00848057318643)
    assert found.smd == pytest.approx(0.501193707613)


def test_small_expected_counts_ask_for_fisher() -> None:
    """R: fisher.test, the tea taster and a table of two rows and four columns."""
    tea = compare_categories(np.array([[3, 1], [1, 3]]))
    assert tea.test == "Fisher's exact test"
    assert tea.p_value == pytest.approx(34 / 70)
    wide = compare_categories(np.array([[10, 4, 1, 0], [3, 9, 5, 4]]))
    assert wide.p_value == pytest.approx(0.00847792027452)


def all_tables(rows: list[int], columns: list[int]) -> list[np.ndarray]:
    """Every table of two or three rows with these margins, by brute force."""
    first = [range(min(rows[0], c) + 1) for c in columns]
    found: list[np.ndarray] = []
    for top in product(*first):
        if sum(top) != rows[0]:
            continue
        left = [c - t for c, t in zip(columns, top, strict=True)]
        if len(rows) == 2:
            found.append(np.array([top, left]))
        else:
            found += [np.vstack([top, below]) for below in all_tables(rows[1:], left)]
    return found


@pytest.mark.parametrize(
    "table", [[[4, 0, 2], [1, 3, 3]], [[2, 1, 0], [1, 3, 1], [0, 1, 4]], [[5, 0], [0, 1], [1, 4]]]
)
def test_fisher_sums_every_table_that_is_not_more_probable(table: list[list[int]]) -> None:
    seen = np.array(table)

    def chance(t: np.ndarray) -> float:
        margins = [*t.sum(axis=0), *t.sum(axis=1)]
        top = prod(factorial(int(m)) for m in margins)
        return top / factorial(int(t.sum())) / prod(factorial(int(v)) for v in t.flat)

    every = all_tables(list(seen.sum(axis=1)), list(seen.sum(axis=0)))
    assert sum(map(chance, every)) == pytest.approx(1)
    expected = sum(c for c in map(chance, every) if c <= chance(seen) * (1 + 1e-9))
    assert fisher_exact(seen)[0] == pytest.approx(expected)


def test_too_many_tables_are_drawn_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.array([[5, 2, 1], [1, 6, 2], [0, 1, 7]])
    exact, _ = fisher_exact(table)
    monkeypatch.setattr(characteristics, "_MOST_PATHS", 1)
    drawn, words = fisher_exact(table)
    assert "99,999 tables drawn, seed 0" in words
    # Five standard errors of a drawn share.
    assert abs(drawn - exact) < 5 * np.sqrt(exact / 99_999)


@given(
    st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3), min_size=2, max_size=2).filter(
        lambda t: (
            sum(t[0]) > 0
            and sum(t[1]) > 0
            and sum(c > 0 for c in map(sum, zip(*t, strict=True))) > 1
        )
    )
)
def test_rows_and_columns_in_any_order_give_the_same(table: list[list[int]]) -> None:
    found = compare_categories(np.array(table))
    for other in (table[::-1], [row[::-1] for row in table]):
        again = compare_categories(np.array(other))
        assert again.p_value == pytest.approx(found.p_value)
        assert (again.smd is None) == (found.smd is None)
        if found.smd is not None:
            assert again.smd == pytest.approx(found.smd, abs=1e-9)


@pytest.mark.parametrize(
    ("table", "words", "smd"),
    [
        ([[3, 0], [4, 0]], "all values are equal", 0.0),
        ([[3, 2], [0, 0]], "fewer than two groups", None),
        ([[0, 0], [0, 0]], "fewer than two groups", None),
    ],
)
def test_counts_without_a_test_say_why(
    table: list[list[int]], words: str, smd: float | None
) -> None:
    found = compare_categories(np.array(table))
    assert found.p_value is None
    assert words in found.test
    assert found.smd == smd


def test_groups_without_a_common_category_have_no_finite_difference() -> None:
    found = compare_categories(np.array([[9, 0], [0, 9]]))
    assert found.p_value == pytest.approx(2 / comb(18, 9))
    assert found.smd is None


def test_counts_that_are_no_counts_are_refused() -> None:
    for wrong in ([[1.5, 2], [3, 4]], [[-1, 2], [3, 4]], [1, 2]):
        with pytest.raises(ValueError, match="whole numbers"):
            compare_categories(np.array(wrong))
