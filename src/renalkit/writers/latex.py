"""How does a table of the report go into a manuscript? As booktabs LaTeX, every word escaped.

The file holds one `table` environment and needs `\\usepackage{booktabs}` and, for UTF-8 words of
other scripts, an engine that has them (XeLaTeX, LuaLaTeX).
"""

from __future__ import annotations

from renalkit.writers.document import Cell, Table
from renalkit.writers.wording import (
    EN_DASH,
    MINUS,
    NO_BREAK,
    PLUS_MINUS,
    THIN_SPACE,
    shown,
)

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",
    "]": "{]}",
    "\n": " ",
    "\t": " ",
    MINUS: r"\ensuremath{-}",
    PLUS_MINUS: r"\ensuremath{\pm}",
    EN_DASH: "--",
    NO_BREAK: "~",
    THIN_SPACE: r"\,",
}


def latex(text: str) -> str:
    """Words as LaTeX text; no character of theirs acts.

    >>> print(latex("50 % of a_b & {c}"))
    50 \\% of a\\_b \\& \\{c\\}
    """
    return "".join(_ESCAPES.get(c, c) for c in shown(text))


def table_tex(table: Table) -> str:
    """The table with its caption and notes; equal tables give equal bytes."""
    align = "".join("l" if c.align == "text" else "r" for c in table.columns)
    head = " & ".join(latex(c.head) for c in table.columns)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_sentences(table.title, table.caption)}}}",
        f"\\label{{tab:{''.join(c for c in table.name if c.isalnum() or c in '.-')}}}",
        f"\\begin{{tabular}}{{{align}}}",
        "\\toprule",
        f"{head} \\\\",
        "\\midrule",
        *(" & ".join(_cell(c) for c in row) + r" \\" for row in table.rows),
        "\\bottomrule",
        "\\end{tabular}",
        *(
            f"\\par\\footnotesize\\textsuperscript{{{latex(mark)}}} {latex(note)}."
            for mark, note in table.notes
        ),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _sentences(title: str, caption: str) -> str:
    return latex(f"{title} {caption}".strip())


def _cell(cell: Cell) -> str:
    words = latex(" ".join(w for w in (cell.text, cell.interval) if w))
    if cell.strong and words:
        words = f"\\textbf{{{words}}}"
    return words + (f"\\textsuperscript{{{latex(cell.mark)}}}" if cell.mark else "")
