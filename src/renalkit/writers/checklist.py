"""Which items of a reporting checklist does a run answer, and which must the authors write?

An item is answered by the run, partly, by the authors, or open. Nothing here says that a study
complies with a guideline: a form is a help for writing, and its wording is ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from renalkit.writers.scan_words import Say, spoken
from renalkit.writers.source import ReportSource
from renalkit.writers.wording import plural


class State(StrEnum):
    """How far an item is answered."""

    RUN = "answered by the run"
    PARTLY = "partly"
    AUTHORS = "answered by the authors"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a run says to an item. whole: nothing is left for the authors to add."""

    words: str = ""
    whole: bool = False


def whole(*sentences: Say) -> Callable[[ReportSource], Answer]:
    """An item that these sentences answer, once the run can say one of them."""
    return lambda source: Answer(_joined(source, sentences), whole=True)


def part(*sentences: Say) -> Callable[[ReportSource], Answer]:
    """An item that these sentences answer in part."""
    return lambda source: Answer(_joined(source, sentences))


def when(
    complete: Callable[[ReportSource], bool], *sentences: Say
) -> Callable[[ReportSource], Answer]:
    """An item that these sentences answer wholly where `complete`, otherwise in part."""
    return lambda source: Answer(_joined(source, sentences), whole=complete(source))


def nothing(source: ReportSource) -> Answer:
    """An item of which a run knows nothing."""
    return Answer()


def _joined(source: ReportSource, sentences: Sequence[Say]) -> str:
    return " ".join(words for say in sentences if (words := spoken(source, say)))


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a form, in our own words. to_add: what the authors must write."""

    number: str
    section: str
    asks: str
    to_add: str
    answer: Callable[[ReportSource], Answer] = nothing


@dataclass(frozen=True, slots=True)
class Form:
    """A checklist. name: what users type. after: the publication to consult."""

    name: str
    title: str
    after: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """An item with its answers. open_part: what is still to be written, "" when nothing is."""

    item: Item
    state: State
    from_run: str
    from_authors: str

    @property
    def open_part(self) -> str:
        return self.item.to_add if self.state in (State.OPEN, State.PARTLY) else ""

    @property
    def words(self) -> str:
        """Everything that is to be said, for one cell."""
        said = " ".join(w for w in (self.from_run, self.from_authors) if w)
        if self.state is State.OPEN:
            return f"The authors must write this: {self.open_part}"
        return f"{said} To add: {self.open_part}" if self.open_part else said


def filled(form: Form, source: ReportSource) -> tuple[Line, ...]:
    """Every item with what the run and its authors say; what authors wrote completes an item."""
    written = source.authors.get(form.name) or {}
    lines: list[Line] = []
    for item in form.items:
        found = item.answer(source)
        own = str(written.get(item.number) or "").strip()
        if own:
            state = State.AUTHORS
        elif found.words:
            state = State.RUN if found.whole else State.PARTLY
        else:
            state = State.OPEN
        lines.append(Line(item, state, found.words, own))
    return tuple(lines)


def counts(lines: Sequence[Line]) -> dict[State, int]:
    """Number of items in each state."""
    found = Counter(line.state for line in lines)
    return {state: found[state] for state in State}


def counts_words(lines: Sequence[Line]) -> str:
    """The counts in one sentence."""
    n = counts(lines)
    words = f"{n[State.RUN]} of {plural(len(lines), 'item')} answered by the run"
    words += f", {n[State.PARTLY]} partly"
    words += f", {n[State.AUTHORS]} by the authors" if n[State.AUTHORS] else ""
    return f"{words}, {n[State.OPEN]} open"
