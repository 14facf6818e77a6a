"""What all tests share: one thread, so that parallel test processes do not fight; no deadlines;
files in memory where there is room."""

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

# Everything durable waits for the disk, milliseconds each time; a disk in memory answers at once.
MEMORY, ROOM_BYTES = Path("/dev/shm"), 8 << 30
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# A deadline measures the machine, not the code: nothing here is a timed assertion.
settings.register_profile("renalkit", deadline=None)
settings.load_profile("renalkit")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and tests stay to the end: garbage is not looked for among them, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


TRAINING = ("torch", "monai", "lightning_fabric", "onnx", "onnxscript")
STUDY = ("zarr", "numcodecs", "pyarrow", "openpyxl")
ABSENT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
"""


def _where_absent(packages: tuple[str, ...]) -> Callable[..., str]:
    def run(program: str, *words: object, cwd: Path | None = None) -> str:
        program = ABSENT.format(absent=packages) + program
        command = [sys.executable, "-c", program, *map(str, words)]
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run


@pytest.fixture(scope="session")
def without_torch() -> Callable[..., str]:
    """Run a program (text, its arguments) where torch and what goes with it cannot be imported; what
    it prints."""
    return _where_absent(TRAINING)


@pytest.fixture(scope="session")
def with_runtime_alone() -> Callable[..., str]:
    """The same where only the extra 'runtime' is installed: no torch, and no store of cohorts."""
    return _where_absent(TRAINING + STUDY)
