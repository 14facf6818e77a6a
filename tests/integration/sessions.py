"""A command in a session of its own: how it is started, and which of its processes are alive."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

LIMIT_S = 200
# Parallel test runners ignore SIGINT, and a child would inherit that.
_MAIN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from renalkit.cli import main; main()"
)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(words: Sequence[str]) -> list[str]:
    """What starts renalkit with these words."""
    return [sys.executable, "-c", _MAIN, *words]


def start(words: Sequence[str]) -> subprocess.Popen[str]:
    """renalkit in a session of its own, as a terminal would start it."""
    return subprocess.Popen(
        command(words),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def members(session: int) -> list[int]:
    """Living processes of a session."""
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def workers(session: int) -> list[int]:
    """Those of them that work for the command."""
    found: list[int] = []
    for pid in members(session):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"spawn_main" in words:
            found.append(pid)
    return found


def until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


def ended(session: int) -> None:
    """Nothing of a session is left, now or very soon."""
    deadline = time.monotonic() + 20
    while members(session):
        assert time.monotonic() < deadline, "processes were left behind"
        time.sleep(0.01)
