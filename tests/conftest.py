"""What all tests share: one thread, so that parallel test processes do not fight; no deadlines."""

import os
import subprocess
import sys

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

# A deadline measures the machine, not the code: nothing here is a timed assertion.
settings.register_profile("renalkit", deadline=None)
settings.load_profile("renalkit")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test marked `forks` in an interpreter of its own once this one has loaded OpenVINO:
    the threads it leaves behind crash a process that forks and then meets a signal. Training never
    loads it."""
    if pyfuncitem.get_closest_marker("forks") is None or "openvino" not in sys.modules:
        return None
    plain = ("no:randomly", "no:xdist", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", "-q", *(f"-p{name}" for name in plain)]
    done = subprocess.run(
        [*command, pyfuncitem.nodeid],
        cwd=pyfuncitem.config.rootpath,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return True
