"""Does a path hold a CT cascade? Asked before anything of CT is loaded: it costs seconds."""

from __future__ import annotations

from pathlib import Path

from renalkit.runtime.package import CASCADE_KIND, kind_of
from renalkit.store.runs import RunFolder


def holds_cascade(path: Path) -> bool:
    """Whether a path is a package of a cascade, a run with CT scans, or a folder in such a run."""
    if kind_of(path) is not None:
        return kind_of(path) == CASCADE_KIND
    return scan_run_of(path) is not None


def scan_run_of(path: Path) -> RunFolder | None:
    """The run with CT scans that a path is, or lies in, none where there is no such run."""
    whole = path.resolve()
    runs = (RunFolder(p) for p in (whole, whole.parent, whole.parent.parent))
    return next((run for run in runs if run.holds_scans), None)
