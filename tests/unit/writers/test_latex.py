"""Tables as LaTeX: booktabs, escaped, complete."""

from __future__ import annotations

from renalkit.writers.document import Column, TableBuilder
from renalkit.writers.latex import latex, table_tex
from renalkit.writers.wording import Estimate

NASTY = "\\input{/etc/passwd} $x^2$ 5 % a_b & #1 ~ <x> [y]\x1b"


def test_no_foreign_character_acts() -> None:
    words = latex(NASTY)
    assert "\\input" not in words
    assert "\x1b" not in words
    for c in "%$&#_":
        assert words.count(c) == words.count(f"\\{c}") == NASTY.count(c)


def test_a_table_has_its_rules_caption_intervals_and_notes() -> None:
    table = TableBuilder("some-name", "A title.", (Column("System"), Column("AUC", "number")))
    table.add("one_two", Estimate(0.8124, 0.741, 0.869, 0.95, 40, "patient", "DeLong"))
    table.add("three", Estimate.of(None, "one class"))
    text = table_tex(table.build("95 % intervals."))
    for line in (
        "\\begin{tabular}{lr}",
        "\\toprule",
        "System & AUC \\\\",
        "one\\_two & 0.812 (0.74--0.87) \\\\",
        "three & n/a\\textsuperscript{a} \\\\",
        "\\caption{A title. 95 \\% intervals.}",
        "\\label{tab:some-name}",
    ):
        assert line in text, line
    assert "\\textsuperscript{a} one class." in text
    assert text.count("\\begin") == text.count("\\end") == 2
