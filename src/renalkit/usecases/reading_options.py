"""What do options about a table of readings mean: names of columns, words for calls, the scale?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from renalkit.domain.readings import ScoreScale
from renalkit.errors import ConfigError
from renalkit.readers.reading_rules import CallWords, ReadingColumns, ReadingRules


def reading_rules(
    columns: Sequence[str], positive: Sequence[str], negative: Sequence[str]
) -> ReadingRules:
    """How a table is written; words for calls are added to the usual ones.

    Raises: ConfigError for columns not given as WHAT=COLUMN, or a word that means both.
    """
    usual = CallWords()
    words = CallWords((*usual.positive, *positive), (*usual.negative, *negative))
    known = [f.name for f in fields(ReadingColumns)]
    named: dict[str, str] = {}
    problems: list[str] = []
    for item in columns:
        what, separator, name = item.partition("=")
        if not separator or what not in known or not name:
            problems.append(f"--column '{item}': expected WHAT=COLUMN, WHAT {', '.join(known)}")
        named[what] = name
    both = {w.casefold() for w in words.positive} & {w.casefold() for w in words.negative}
    if both:
        problems.append(f"--positive and --negative: {', '.join(sorted(both))} means both")
    if problems:
        raise ConfigError(problems)
    return ReadingRules(columns=replace(ReadingColumns(), **named), words=words)


def scale_of(text: str) -> tuple[float, float, float | None]:
    """LOW:HIGH or LOW:HIGH:STEP. Raises: ConfigError.

    >>> scale_of("1:5:1")
    (1.0, 5.0, 1.0)
    """
    try:
        low, high, *step = (float(part) for part in text.split(":"))
        found = (low, high, step[0] if step else None)
        ScoreScale(*found)
        if len(step) > 1:
            raise ValueError
    except ValueError:
        raise ConfigError(
            [f"--scale '{text}': expected LOW:HIGH or LOW:HIGH:STEP, e.g. 1:5:1"]
        ) from None
    return found
