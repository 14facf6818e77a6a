"""Numbers and foreign words as the report shows them."""

from __future__ import annotations

import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalkit.writers.wording import (
    Estimate,
    count,
    duration,
    large,
    listed,
    methods_of,
    number,
    p_value,
    share,
    shown,
)

ANY_NUMBER = st.none() | st.floats() | st.integers(-(10**12), 10**12)


@given(ANY_NUMBER)
def test_no_formatter_ever_says_nan_or_inf(value: float | None) -> None:
    for words in (number(value), count(value), large(value), duration(value), p_value(value)):
        assert not any(bad in words.lower() for bad in ("nan", "inf", "none"))


@given(st.floats(-1e6, 1e6), st.integers(0, 6))
def test_a_number_reads_back_within_its_digits(value: float, digits: int) -> None:
    text = number(value, digits).replace("\N{MINUS SIGN}", "-")
    assert abs(float(text) - value) <= 0.5 * 10**-digits + 1e-9 * abs(value)
    assert len(text.partition(".")[2]) == digits


def test_a_rounded_zero_has_no_sign() -> None:
    assert number(-0.0004) == "0.000"
    assert number(-0.0, signed=True) == "0.000"


@given(st.text())
def test_D55_nothing_that_acts_survives(text: str) -> None:
    for c in shown(text):
        assert c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


@given(st.text(alphabet=st.characters(whitelist_categories=("L", "N", "P", "S"))))
def test_ordinary_words_are_left_alone(text: str) -> None:
    assert shown(text) == text


def test_D55_bidi_and_escape_become_visible() -> None:
    assert shown("a\x1b[2J\r\n\u202eb") == "a\ufffd[2J\ufffd\n\ufffdb"


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, "0.5", True])
def test_an_undefined_estimate_gives_its_reason(bad: object) -> None:
    e = Estimate.of({"value": bad, "low": 0.1, "high": 0.2, "n": 3, "unit": "patient"})
    assert e.words() == "n/a"
    assert e.note == "undefined for these data"
    assert e.interval() == ""


def test_intervals_below_zero_are_joined_by_a_word() -> None:
    e = Estimate(0.01, -0.02, 0.04, 0.95, 9, "patient", "bootstrap")
    assert e.interval(2) == "(\N{MINUS SIGN}0.02 to 0.04)"
    assert e.words(3, 3, signed=True) == "+0.010 (\N{MINUS SIGN}0.020 to +0.040)"


def test_methods_are_named_once_per_level() -> None:
    e = Estimate(0.5, 0.4, 0.6, 0.95, 9, "patient", "bootstrap")
    f = Estimate(0.5, 0.4, 0.6, 0.95, 9, "patient", "DeLong")
    none = Estimate(None, None, None, 0.95, 9, "patient", "hidden", "why")
    assert methods_of([e, f, e, none]) == "95\u00a0% intervals: bootstrap; DeLong"


def test_shares_and_lists() -> None:
    assert share(0, 0) == "n/a"
    assert share(2, 3) == "66.7\u00a0%"
    assert listed([]) == ""
    assert listed(["a", "b"]) == "a and b"


@given(st.integers(0, 10**15))
def test_large_keeps_three_digits(value: int) -> None:
    head, _, prefix = large(value).partition(" ")
    scale = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[prefix]
    assert float(head) * scale == pytest.approx(value, rel=6e-3, abs=0.5)
