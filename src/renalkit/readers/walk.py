"""Which files lie in a folder, and which entries are none that can be read?

Special files are never opened (opening a pipe would wait for ever), no folder is entered twice, so
links cannot lead in a circle, and the walk keeps its own list of folders, so depth does not matter.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from renalkit.domain.study import Defect
from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import FileReport, Outcome

_LONGEST_PATH_BYTES = 4095


def walk_files(root: Path) -> Iterator[Path | FileReport]:
    """Every regular file below `root`, folder by folder in byte order; a report for what is not.

    A symbolic link is followed when it leads to a regular file or to a folder inside `root` that
    is not one of its own parents; each folder is entered once. Paths longer than the system
    can open (4,095 bytes) are reported, not read. Names keep bytes that are not UTF-8 as
    surrogates.

    Raises:
        InputRefused: UNREADABLE, root is no folder that can be read.
    """
    if not root.is_dir():
        raise InputRefused(
            Reason.UNREADABLE,
            "import folder that is not there or no folder",
            expected="a folder",
            remedy="check the path and its permissions",
        )
    inside = root.resolve()
    entered: set[tuple[int, int]] = set()
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            facts = folder.stat()
            if (facts.st_dev, facts.st_ino) in entered:
                yield _skipped(folder, Reason.SPECIAL_FILE, "a link to a folder already read")
                continue
            entered.add((facts.st_dev, facts.st_ino))
            with os.scandir(folder) as listing:
                names = sorted((entry.name for entry in listing), key=os.fsencode)
        except OSError:
            yield _unreadable(folder)
            continue
        folders: list[Path] = []
        for name in names:
            path = folder / name
            found = _judge(path, inside)
            if found is _FOLDER:
                folders.append(path)
            elif isinstance(found, FileReport):
                yield found
            else:
                yield path
        pending.extend(reversed(folders))


_FOLDER, _FILE = object(), object()


def _judge(path: Path, inside: Path) -> object:
    """_FOLDER, _FILE, or the report of an entry that is neither."""
    if len(os.fsencode(path)) > _LONGEST_PATH_BYTES:
        return FileReport(
            path,
            Outcome.REFUSED,
            (Defect(Reason.UNREADABLE, "a path longer than the system can open"),),
        )
    try:
        is_link = path.is_symlink()
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode) and is_link and not path.resolve().is_relative_to(inside):
            return _skipped(path, Reason.SPECIAL_FILE, "a link to a folder outside")
    except (OSError, RuntimeError):  # RuntimeError: pathlib's word for a loop of links
        return _skipped(path, Reason.SPECIAL_FILE, "a link that leads nowhere or in a circle")
    if stat.S_ISDIR(mode):
        return _FOLDER
    if not stat.S_ISREG(mode):
        return _skipped(path, Reason.SPECIAL_FILE, "a pipe, socket or device")
    return _FILE if os.access(path, os.R_OK) else _unreadable(path)


def _skipped(path: Path, reason: Reason, words: str) -> FileReport:
    return FileReport(path, Outcome.SKIPPED, (Defect(reason, words),))


def _unreadable(path: Path) -> FileReport:
    words = "an entry that cannot be read with the present permissions"
    return FileReport(path, Outcome.REFUSED, (Defect(Reason.UNREADABLE, words),))
