"""What do the authors say of a system and of their study? From the run's reporting.toml."""

from __future__ import annotations

from renalkit.writers import figure_words
from renalkit.writers.source import ReportSource


def _said(source: ReportSource, key: str) -> str:
    return str((source.authors.get("card") or {}).get(key) or "").strip()


def _sentence(opening: str, words: str) -> str:
    if not words:
        return ""
    return f"{opening}: {words}" if words[-1] in ".!?" else f"{opening}: {words}."


def intended_use(source: ReportSource) -> str:
    """What the authors mean the system for."""
    return _sentence("Intended use", _said(source, "intended_use"))


def limitations(source: ReportSource) -> str:
    """The limitations the authors state."""
    return _sentence("Limitations", _said(source, "limitations"))


def cautions(source: ReportSource) -> str:
    """What the run itself knows to speak against its figures."""
    return " ".join(figure_words.cautions(source))


def availability(source: ReportSource) -> str:
    """Licence and contact, as the authors state them."""
    licence = _sentence("Licence of the weights", _said(source, "licence"))
    contact = _sentence("Contact", _said(source, "contact"))
    return " ".join(w for w in (licence, contact) if w)
