"""What do reporting guidelines ask of a run, and what of it is answered? The lists as a command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from renalkit.errors import ConfigError
from renalkit.store.files import write_text
from renalkit.store.runs import RunFolder, amending_manifest
from renalkit.usecases.report import read_source
from renalkit.usecases.reporting import make_reporting
from renalkit.usecases.results import Json
from renalkit.writers.checklist import Form, Line, State, counts, counts_words, filled
from renalkit.writers.checklists_section import FORMS, NO_COMPLIANCE, checklists, checklists_csv
from renalkit.writers.markdown import document_md
from renalkit.writers.report import page_of, render_document
from renalkit.writers.source import ReportSource

SUFFIXES = (".csv", ".html", ".md")


@dataclass(frozen=True, slots=True)
class ChecklistRequest:
    """What the user asked for. form: one of FORMS, all when None; output: CSV, HTML or Markdown."""

    run: Path
    form: str | None = None
    output: Path | None = None


def fill_checklists(request: ChecklistRequest) -> Json:
    """Counts and items of the forms; makes reporting.toml where there is none, writes `output`.

    Raises:
        ConfigError: an unknown form or suffix, or a reporting.toml that cannot be used.
        StoreError: no figures yet, or a damaged run.
    """
    forms = _forms(request.form)
    if request.output is not None and request.output.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            [f"--output: '{request.output.name}' ends in none of {', '.join(SUFFIXES)}"]
        )
    run = RunFolder(request.run)
    source = read_source(run, None, pictures=False)
    made = make_reporting(run, source)
    if request.output is not None:
        with amending_manifest(run.path):
            write_text(request.output, _written(source, forms, request.output.suffix.lower()))
    found = {form: filled(form, source) for form in forms}
    return {
        "schema": 1,
        "reporting": str(run.reporting),
        "made": made,
        "output": None if request.output is None else str(request.output),
        "forms": [
            {
                "form": form.name,
                "title": form.title,
                "after": form.after,
                "counts": {state.name.lower(): n for state, n in counts(lines).items()},
                "words": f"{form.title}: {counts_words(lines)}",
                "items": [_plain(line) for line in lines],
            }
            for form, lines in found.items()
        ],
        "note": NO_COMPLIANCE,
    }


def _forms(name: str | None) -> tuple[Form, ...]:
    if name is None:
        return tuple(FORMS.values())
    if name not in FORMS:
        raise ConfigError([f"--form: '{name}' is not one of {', '.join(FORMS)}"])
    return (FORMS[name],)


def _plain(line: Line) -> Json:
    return {
        "item": line.item.number,
        "section": line.item.section,
        "asks_for": line.item.asks,
        "state": line.state.name.lower(),
        "from_run": line.from_run,
        "from_authors": line.from_authors,
        "to_add": line.open_part,
    }


def _written(source: ReportSource, forms: tuple[Form, ...], suffix: str) -> str:
    if suffix == ".csv":
        return checklists_csv(source, forms)
    titles = " and ".join(form.title for form in forms)
    page = page_of(source, titles, (checklists(source, forms, folded=False),))
    return document_md(page) if suffix == ".md" else render_document(page).html


def checklist_words(found: Json) -> str:
    """Counts and what is still to be written, for a terminal."""
    lines: list[str] = []
    for form in found["forms"]:
        lines.append(form["words"])
        for item in form["items"]:
            if item["to_add"]:
                mark = "open  " if item["state"] == State.OPEN.name.lower() else "partly"
                lines.append(f"  {item['item']:>4}  {mark}  {item['asks_for']}: {item['to_add']}")
        lines.append("")
    lines.append(f"Answers go into {found['reporting']}" + (" (made now)" if found["made"] else ""))
    if found["output"]:
        lines.append(f"Written: {found['output']}")
    return "\n".join([*lines, found["note"]])
