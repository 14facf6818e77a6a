"""A small finished run for the tests of what reads runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def made_run() -> ModuleType:
    """tests/unit/writers/made_run.py, which makes runs without training."""
    path = Path(__file__).parents[1] / "writers" / "made_run.py"
    spec = importlib.util.spec_from_file_location("made_run", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["made_run"] = module
    spec.loader.exec_module(module)
    return module
