"""What `info` lists, and what `doctor` says when the computer answers late."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from renalkit.systems.ct_cascade import CASCADES, CascadeParams
from renalkit.usecases.describe import describe, describe_words, diagnose


def test_a_check_that_takes_too_long_fails_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(command: list[str], *, timeout: float, **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", late)
    found = diagnose()
    words = {c["check"]: c["words"] for c in found["checks"] if not c["ok"]}
    assert not found["ok"]
    assert set(words) == {"torch", "decoder"}
    assert all("did not start" in w for w in words.values())


def test_the_cascade_is_listed_with_the_settings_of_its_three_stages() -> None:
    found = describe()
    (cascade,) = found["cascades"]
    assert cascade["name"] == "ct-cascade"
    assert cascade["card"]["claims"]
    assert list(cascade["stages"]) == list(CASCADES[0].stages) == ["kidney", "mass", "lesion"]
    told = {*cascade["parameters"], *cascade["stages"]}
    assert told == set(CascadeParams.model_fields)
    for name, keys in cascade["stages"].items():
        assert set(keys) == set(CASCADES[0].stages[name].model_fields)
        assert all(key.get("description") for key in keys.values())
    line = next(one for one in describe_words(found).splitlines() if "ct-cascade" in one)
    assert line.endswith("[CT scans: kidney, mass, lesion]")
