"""How does a run become one page? Sections in order, rendered with every foreign word escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from renalkit import __version__
from renalkit.writers import (
    checklists_section,
    clinical_section,
    comparisons_section,
    lesions_section,
    methods_section,
    patients_sections,
    readers_sections,
    reproduction_section,
    results_sections,
    scan_sections,
    study_sections,
    systems_sections,
    usefulness_sections,
)
from renalkit.writers.csv_table import csv_text
from renalkit.writers.document import (
    Block,
    Document,
    Figure,
    Folded,
    Section,
    Table,
)
from renalkit.writers.figures import standalone
from renalkit.writers.latex import table_tex
from renalkit.writers.source import Json, ReportSource
from renalkit.writers.wording import shown

NOT_A_DEVICE = "Research software, not a medical device. Not for diagnosis or treatment decisions."
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class RenderedReport:
    """The page and the files that go beside it: name inside the figures folder -> text."""

    html: str
    files: dict[str, str]


def build_document(source: ReportSource) -> Document:
    """All sections that this run has something to say in, in the order of a paper."""
    if source.scans:
        return page_of(source, "Renal masses on CT: results", scan_sections.sections(source))
    made: tuple[Section | None, ...] = (
        study_sections.summary(source),
        reproduction_section.reproduction(source),
        study_sections.cohort(source),
        patients_sections.patients(source),
        study_sections.checks(source),
        results_sections.segmentation(source),
        lesions_section.lesions(source),
        results_sections.classification(source),
        clinical_section.clinical(source),
        usefulness_sections.usefulness(source),
        comparisons_section.comparisons(source),
        readers_sections.readers(source),
        patients_sections.subgroups(source),
        results_sections.training(source),
        results_sections.cases(source),
        systems_sections.complexity(source),
        systems_sections.cards(source),
        methods_section.methods(source),
        checklists_section.checklists(source),
        systems_sections.configuration(source),
    )
    sections = tuple(s for s in made if s is not None)
    return page_of(source, "Renal-tumour imaging: results and supplementary material", sections)


def page_of(source: ReportSource, subtitle: str, sections: Sequence[Section]) -> Document:
    """A page about a run: its name, what its figures rest on, and these sections."""
    finished = str((source.record or {}).get("finished") or "")
    facts = [
        ("Cohort digest", str(source.metrics["cohort_digest"])[:12]),
        ("Split digest", str(source.metrics["split_digest"])[:12]),
        ("renalkit", str((source.record or {}).get("versions", {}).get("renalkit", __version__))),
    ]
    if finished:
        facts.append(("Finished", finished))
    return Document(
        title=source.name,
        subtitle=subtitle,
        facts=tuple(facts),
        sections=tuple(sections),
        footer=NOT_A_DEVICE,
    )


def _walk(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Folded):
            yield from _walk(block.blocks)


def numbers_of(document: Document) -> dict[str, str]:
    """'Table 3' and 'Figure 2' by name, counted through the whole document."""
    found: dict[str, str] = {}
    tables = figures = 0
    for section in document.sections:
        for block in _walk(section.blocks):
            if isinstance(block, Table):
                tables += 1
                found[block.name] = f"Table {tables}"
            elif isinstance(block, Figure):
                figures += 1
                found[f"figure:{block.name}"] = f"Figure {figures}"
    return found


def table_files(document: Document) -> dict[str, str]:
    """Every table as CSV, as it is printed, and as LaTeX."""
    files: dict[str, str] = {}
    for section in document.sections:
        for block in _walk(section.blocks):
            if isinstance(block, Table):
                rows = [
                    [" ".join(w for w in (c.text, c.interval) if w) for c in row]
                    for row in block.rows
                ]
                files[f"tables/{block.name}.csv"] = csv_text([c.head for c in block.columns], rows)
                files[f"tables/{block.name}.tex"] = table_tex(block)
    return files


def figure_files(document: Document) -> dict[str, str]:
    """Every figure as SVG and its numbers as CSV; pictures of patients in a folder of their own."""
    files: dict[str, str] = {}
    for section in document.sections:
        for block in _walk(section.blocks):
            if isinstance(block, Figure):
                folder = "pictures/" if block.pictures else ""
                files[f"{folder}{block.name}.svg"] = standalone(block.svg)
                if block.csv:
                    files[f"{block.name}.csv"] = block.csv
    return files


def _foreign_made_visible(value: Any) -> Any:
    """What Jinja prints: markup of ours as it is, every other text without acting characters."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else shown(value)


def _kind(block: Block) -> str:
    """The name of a block's type, by which the template draws it."""
    return type(block).__name__.lower()


# The only words that are not escaped are the drawings and the style sheet of this package.


def _drawing(figure: Figure) -> Markup:
    return Markup(figure.svg.markup)  # noqa: S704


def _style() -> Markup:
    return Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8"))  # noqa: S704


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_foreign_made_visible,
    )


def render_report(source: ReportSource) -> RenderedReport:
    """The self-contained page and its figure files; equal sources give equal bytes."""
    return render_document(build_document(source))


def render_readers(found: Json, title: str) -> RenderedReport:
    """A page of its own for a reader study."""
    section = readers_sections.readers_section(found, [str(s["label"]) for s in found["systems"]])
    return render_document(
        Document(
            title=title,
            subtitle="Reader study",
            facts=(("renalkit", __version__),),
            sections=(section,),
            footer=NOT_A_DEVICE,
        )
    )


def render_document(document: Document) -> RenderedReport:
    """Any document as a self-contained page with its files."""
    template = _environment().get_template("report.html.j2")
    html = template.render(
        document=document,
        numbers=numbers_of(document),
        not_a_device=NOT_A_DEVICE,
        style=_style(),
        kind=_kind,
        drawing=_drawing,
    )
    return RenderedReport(html, figure_files(document) | table_files(document))
