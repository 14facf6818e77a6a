"""What `doctor` says when the computer answers late."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from renalkit.usecases.describe import diagnose


def test_a_check_that_takes_too_long_fails_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(command: list[str], *, timeout: float, **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", late)
    found = diagnose()
    words = {c["check"]: c["words"] for c in found["checks"] if not c["ok"]}
    assert not found["ok"]
    assert set(words) == {"torch", "decoder"}
    assert all("did not start" in w for w in words.values())
