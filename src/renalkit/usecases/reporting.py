"""What do the authors of a run add to it? reporting.toml: answers to checklists, words of the card.

The file lies in the run folder, is made once by `renalkit checklist` or `renalkit card`, and is the
authors' from then on. It is no part of the run's settings or manifest, so that writing it neither
makes a finished fold invalid nor looks like damage.
"""

from __future__ import annotations

import textwrap

from pydantic import ConfigDict, Field

from renalkit.config import Settings, parse_settings, read_toml
from renalkit.errors import ConfigError
from renalkit.store.files import write_text
from renalkit.store.runs import RunFolder
from renalkit.usecases.results import Json
from renalkit.writers.checklist import Line, filled
from renalkit.writers.checklists_section import FORMS
from renalkit.writers.source import ReportSource
from renalkit.writers.wording import shown

_WIDTH = 96


class CardWords(Settings):
    """What the model card cannot know. intended_use and limitations must be written before there
    is a card; out_of_scope: uses it must not be put to. licence: of the weights.
    """

    intended_use: str = ""
    limitations: str = ""
    out_of_scope: str = ""
    licence: str = ""
    contact: str = ""


class Reporting(Settings):
    """reporting.toml. claim, tripod_ai: answers by number of the item."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)

    card: CardWords = CardWords()
    claim: dict[str, str] = Field(default_factory=dict)
    tripod_ai: dict[str, str] = Field(default_factory=dict, alias="tripod-ai")

    @property
    def plain(self) -> Json:
        """As the report reads it: the card and each form by its name."""
        return self.model_dump(mode="json", by_alias=True)


_CARD_ASKS = {
    "intended_use": "What the system is meant for, for whom, in whose hands. Needed for the card.",
    "limitations": "Where it fails or was not tested. Needed for the card.",
    "out_of_scope": "What it must not be used for, beyond diagnosis and treatment decisions.",
    "licence": "Terms under which the trained weights may be used.",
    "contact": "Whom to ask; no address that should not be public.",
}


def read_reporting(run: RunFolder) -> Reporting:
    """What the authors wrote; nothing where there is no file.

    Raises ConfigError with every problem: no TOML, unknown keys, items a form does not have.
    """
    if not run.reporting.exists():
        return Reporting()
    where = run.reporting.name
    try:
        found = parse_settings(Reporting, read_toml(run.reporting))
    except ConfigError as error:
        raise ConfigError(error.problems, where=error.where or where) from error
    problems: list[str] = []
    for name, answers in (("claim", found.claim), ("tripod-ai", found.tripod_ai)):
        form = FORMS[name]
        known = [item.number for item in form.items]
        problems += [
            f'{name}."{number}": {form.title} has no such item; its items are '
            f"{known[0]} to {known[-1]}, as 'renalkit checklist' lists them"
            for number in answers
            if number not in known
        ]
    if problems:
        raise ConfigError(problems, where=where)
    return found


def make_reporting(run: RunFolder, source: ReportSource) -> bool:
    """Write reporting.toml with everything that can be answered; False when it is there already."""
    if run.reporting.exists():
        return False
    write_text(run.reporting, _template(source))
    return True


def _template(source: ReportSource) -> str:
    lines = [
        "# What only the authors of this run can say, for 'renalkit report' and 'renalkit card'.",
        "# Once made, renalkit never changes this file. An empty answer is no answer. Long answers",
        "# may go over several lines between three quotation marks.",
        "",
        "[card]",
    ]
    for key, asks in _CARD_ASKS.items():
        lines += ["", *_comment(asks), f'{key} = ""']
    for form in FORMS.values():
        found = filled(form, source)
        lines += ["", "", *_comment(f"{form.title}, numbers after {form.after}."), f"[{form.name}]"]
        for line in found:
            lines += ["", *_item(line), f'"{line.item.number}" = ""']
    return "\n".join(lines) + "\n"


def _item(line: Line) -> list[str]:
    item = line.item
    lines = _comment(f"{item.number}  {item.section}. {item.asks} [{line.state.value}]")
    lines += _comment(f"The run: {line.from_run}", "   ") if line.from_run else []
    lines += _comment(f"To add: {line.open_part}", "   ") if line.open_part else []
    return lines


def _comment(text: str, indent: str = "") -> list[str]:
    """Lines of a TOML comment; no character of the words ends it."""
    plain = " ".join(shown(text).split())
    return [f"# {indent}{part}" for part in textwrap.wrap(plain, _WIDTH)]
