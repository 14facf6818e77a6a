"""Does the road from pictures to a checked cohort work with every socket denied?"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

DENIAL = """
import os, socket, sys

def _note(name, *words):
    with open(os.path.join({log!r}, name), "a") as file:
        print(*words, file=file)

def _denied(*args, **kwargs):
    _note("attempts", sys.argv, args[1:] if args else "")
    raise OSError("the network is denied in this test")

socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = _denied
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = _denied
_note("starts", sys.orig_argv)
"""


@dataclass(frozen=True)
class Offline:
    """A place where Python starts without network; attempts and starts are noted."""

    folder: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            env=env,
            cwd=self.folder,
        )

    def noted(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""


@pytest.fixture
def offline(tmp_path: Path) -> Offline:
    (tmp_path / "sitecustomize.py").write_text(DENIAL.format(log=str(tmp_path)))
    return Offline(tmp_path)


def test_the_denial_works(offline: Offline) -> None:
    code = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')"
    done = offline.run("-c", code)
    assert done.returncode != 0
    assert "the network is denied" in done.stderr
    assert offline.noted("attempts")


@pytest.mark.slow
def test_pictures_become_a_checked_cohort_without_network(offline: Offline) -> None:
    steps = (
        ("phantom", "us", "-o", "images", "--pictures", "-n", "8", "--size", "128"),
        ("ingest", "images", "-o", "cohorts/tiny", "--json"),
        ("cohort", "check", "cohorts/tiny", "--json"),
        ("cohort", "show", "cohorts/tiny"),
        ("info", "--json"),
    )
    for step in steps:
        done = offline.run("-m", "renalkit", *step)
        assert done.returncode == 0, f"{step}: {done.stderr[-2000:]}"
    assert offline.noted("attempts") == ""
    # The process that decodes untrusted pixels was denied as well.
    assert "renalkit.readers.decode_child" in offline.noted("starts")
