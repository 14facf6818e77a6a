"""How are numbers and foreign words shown? Every number of the report passes through here.

A figure that does not exist is "n/a" with its reason, never "nan". Minus signs and ranges are
typeset. Words from data lose control and direction characters before they reach a page.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOT_AVAILABLE = "n/a"
MINUS = "\N{MINUS SIGN}"
EN_DASH = "\N{EN DASH}"
THIN_SPACE = "\N{NARROW NO-BREAK SPACE}"
NO_BREAK = "\N{NO-BREAK SPACE}"
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
_KEPT_CONTROLS = "\n\t"
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def shown(text: str) -> str:
    """Text without characters that act instead of showing: they become a visible U+FFFD.

    >>> shown("a\\x1b[2Jb")
    'a\\ufffd[2Jb'
    """
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(c) in _HIDDEN and c not in _KEPT_CONTROLS
        else c
        for c in text
    )


def finite(value: Any) -> float | None:
    """The number, or None for what is no finite number (absent, NaN, infinite, text, truth)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def number(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """A number with fixed digits after the point.

    >>> number(0.8124), number(-0.02, 2), number(None), number(0.1, 2, signed=True)
    ('0.812', '−0.02', 'n/a', '+0.10')
    """
    known = finite(value)
    if known is None:
        return NOT_AVAILABLE
    text = f"{known:.{digits}f}"
    if float(text) == 0:
        return text.removeprefix("-")
    if text.startswith("-"):
        return MINUS + text[1:]
    return f"+{text}" if signed else text


def count(value: float | None) -> str:
    """A whole number in groups of three digits.

    >>> count(1234567) == "1\\u202f234\\u202f567", count(None)
    (True, 'n/a')
    """
    known = finite(value)
    if known is None:
        return NOT_AVAILABLE
    return f"{round(known):,}".replace(",", THIN_SPACE).replace("-", MINUS)


def share(part: int, whole: int) -> str:
    """A part of a whole in per cent; n/a of nothing.

    >>> share(1, 8) == "12.5\u00a0%", share(0, 0)
    (True, 'n/a')
    """
    return NOT_AVAILABLE if whole <= 0 else f"{100 * part / whole:.1f}{NO_BREAK}%"


def large(value: float | None) -> str:
    """A large count with its unit prefix and three significant digits.

    >>> large(1_234_567), large(999), large(4.5e9)
    ('1.23 M', '999', '4.50 G')
    """
    known = finite(value)
    if known is None:
        return NOT_AVAILABLE
    for limit, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(known) >= limit * 0.9995:
            scaled = known / limit
            digits = max(0, 2 - int(math.log10(max(abs(scaled), 1))))
            return f"{scaled:.{digits}f} {prefix}"
    return f"{known:.0f}"


def duration(seconds: float | None) -> str:
    """A time for a person.

    >>> duration(42.3), duration(185), duration(7260)
    ('42 s', '3 min 5 s', '2 h 1 min')
    """
    known = finite(seconds)
    if known is None:
        return NOT_AVAILABLE
    whole = round(known)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def p_value(value: float | None) -> str:
    """A p value with three digits, small ones as a bound.

    >>> p_value(0.0312), p_value(0.00002), p_value(None)
    ('0.031', '<0.001', 'n/a')
    """
    known = finite(value)
    if known is None:
        return NOT_AVAILABLE
    return "<0.001" if known < 0.001 else f"{known:.3f}"


def plural(n: int, one: str, many: str | None = None) -> str:
    """A count with its noun.

    >>> plural(1, "patient"), plural(3, "study", "studies")
    ('1 patient', '3 studies')
    """
    return f"{count(n)} {one if n == 1 else many or one + 's'}"


_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def spelled(n: int, one: str, many: str | None = None) -> str:
    """A small count in words, as running text has it.

    >>> spelled(3, "system"), spelled(48, "patient")
    ('three systems', '48 patients')
    """
    words = plural(n, one, many)
    return f"{_NUMBERS[n]} {words.split(' ', 1)[1]}" if 0 <= n < len(_NUMBERS) else words


def listed(words: Sequence[str]) -> str:
    """Words as an enumeration.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def plain(name: str) -> str:
    """The name of a setting or a column as words.

    >>> plain("loader_threads")
    'loader threads'
    """
    return name.replace("_", " ")


def percent_level(level: float) -> str:
    """The level of an interval.

    >>> percent_level(0.95) == "95\\u00a0%"
    True
    """
    return f"{100 * level:.6g}{NO_BREAK}%"


@dataclass(frozen=True, slots=True)
class Estimate:
    """One figure with its interval, as metrics.json holds it. value is None when undefined."""

    value: float | None
    low: float | None
    high: float | None
    level: float
    n: int
    unit: str
    method: str
    note: str = ""

    @classmethod
    def of(cls, raw: Mapping[str, Any] | None, why: str = "not computed") -> Estimate:
        """The estimate of a JSON object; `why` is the reason shown when there is none."""
        if raw is None:
            return cls(None, None, None, 0.95, 0, "", "", why)
        value = finite(raw.get("value"))
        note = str(raw.get("note") or "")
        if value is None and not note:
            note = "undefined for these data"
        return cls(
            value=value,
            low=finite(raw.get("low")),
            high=finite(raw.get("high")),
            level=finite(raw.get("level")) or 0.95,
            n=int(finite(raw.get("n")) or 0),
            unit=str(raw.get("unit") or ""),
            method=str(raw.get("method") or ""),
            note=note,
        )

    @property
    def defined(self) -> bool:
        return self.value is not None

    def head(self, digits: int = 3, *, signed: bool = False) -> str:
        """The figure alone."""
        return number(self.value, digits, signed=signed)

    def interval(self, digits: int = 2, *, signed: bool = False) -> str:
        """The interval in brackets, '' without one."""
        if self.value is None or self.low is None or self.high is None:
            return ""
        low, high = (number(v, digits, signed=signed) for v in (self.low, self.high))
        joined = f"{low} to {high}" if signed or self.low < 0 else f"{low}{EN_DASH}{high}"
        return f"({joined})"

    def words(self, digits: int = 3, ci_digits: int = 2, *, signed: bool = False) -> str:
        """Figure and interval on one line.

        >>> Estimate(0.8124, 0.741, 0.869, 0.95, 40, "patient", "bootstrap").words()
        '0.812 (0.74–0.87)'
        """
        interval = self.interval(ci_digits, signed=signed)
        return f"{self.head(digits, signed=signed)} {interval}".strip()

    def sentence(self, digits: int = 3, *, signed: bool = False) -> str:
        """Figure, level, interval, number and unit, as running text gives them."""
        if self.value is None:
            return f"{NOT_AVAILABLE} ({self.note})"
        interval = self.interval(digits if signed else 2, signed=signed).strip("()")
        parts = [f"{percent_level(self.level)} CI {interval}"] if interval else []
        parts.append(f"n = {plural(self.n, self.unit)}" if self.unit else f"n = {count(self.n)}")
        return f"{self.head(digits, signed=signed)} ({'; '.join(parts)})"


def methods_of(estimates: Sequence[Estimate]) -> str:
    """How the intervals of a table were made, each way named once: for its caption."""
    found: dict[str, list[str]] = {}
    for e in estimates:
        if e.defined and e.method and e.low is not None:
            methods = found.setdefault(percent_level(e.level), [])
            if e.method not in methods:
                methods.append(e.method)
    return "; ".join(f"{level} intervals: {'; '.join(m)}" for level, m in found.items())
