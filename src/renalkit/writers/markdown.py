"""How does a part of a report become Markdown? Every character of foreign words is inert."""

from __future__ import annotations

import re
from collections.abc import Iterable

from renalkit.writers.document import Block, Code, Document, Figure, Folded, Heading, Paragraph
from renalkit.writers.document import Table as TableBlock
from renalkit.writers.wording import shown

_ACTING = re.compile(r"([\\`*_{}\[\]<>|#~&])")


def markdown(text: str) -> str:
    """Words as Markdown text on one line; no character of theirs acts.

    >>> print(markdown("a_b <i>|x|"))
    a\\_b \\<i\\>\\|x\\|
    """
    return _ACTING.sub(r"\\\1", " ".join(shown(text).split()))


def document_md(document: Document) -> str:
    """The document without its figures, which Markdown cannot hold in one file."""
    parts = [f"# {markdown(document.title)}", markdown(document.subtitle)]
    parts += [f"> {markdown(document.footer)}"] if document.footer else []
    parts.append("\n".join(f"- {markdown(n)}: {markdown(v)}" for n, v in document.facts))
    for section in document.sections:
        parts.append(f"## {markdown(section.title)}")
        parts += _blocks(section.blocks)
    return "\n\n".join(p for p in parts if p) + "\n"


def _blocks(blocks: Iterable[Block]) -> Iterable[str]:
    for block in blocks:
        match block:
            case Heading():
                yield f"### {markdown(block.text)}"
            case Paragraph():
                opening = f"**{markdown(block.opening)}** " if block.opening else ""
                yield f"{opening}{markdown(block.text)}"
            case Folded():
                yield f"### {markdown(block.summary)}"
                yield from _blocks(block.blocks)
            case TableBlock():
                yield _table(block)
            case Code():
                yield "\n".join(f"    {shown(line)}" for line in block.text.splitlines())
            case Figure():
                continue


def _table(table: TableBlock) -> str:
    head = "| " + " | ".join(markdown(c.head) for c in table.columns) + " |"
    rule = "|" + "|".join(" --: " if c.align == "number" else " --- " for c in table.columns) + "|"
    rows = [
        "| "
        + " | ".join(
            markdown(
                " ".join(w for w in (c.text, c.interval, f"({c.mark})" if c.mark else "") if w)
            )
            for c in row
        )
        + " |"
        for row in table.rows
    ]
    notes = [f"({mark}) {markdown(note)}." for mark, note in table.notes]
    title = f"**{markdown(table.title)}** {markdown(table.caption)}".strip()
    return "\n\n".join([title, "\n".join([head, rule, *rows]), *notes])
