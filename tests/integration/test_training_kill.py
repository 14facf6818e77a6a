"""Training killed at any moment, also inside a checkpoint write, ends with the same weights.

RENALKIT_KILLS says how often (4 without it), RENALKIT_KILL_SEED repeats the moments of a failure.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("tiny_training.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
KILLS = int(os.environ.get("RENALKIT_KILLS", "4"))
KILLS_PER_RUN = 4
LIMIT_S = 120
SEED = int(os.environ.get("RENALKIT_KILL_SEED", str(random.SystemRandom().randrange(2**32))))
EXPECTED_FILES = {"history.csv", "history.json", "weights.safetensors"}


class Trainer:
    """A process that trains in children of its own, so that each start costs milliseconds."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), "--serve"],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, folder: Path, wait: Callable[[], None] | None = None, number: int = 0) -> int:
        """Exit status of a training that gets a signal when `wait` returns (None: no signal)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{folder}\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        assert child > 1
        if wait is not None:
            wait()
            with suppress(ProcessLookupError):  # it may have ended already
                os.kill(child, number)
        return int(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(LIMIT_S)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def trainer() -> Generator[Trainer]:
    made = Trainer()
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """Digest and duration of the uninterrupted run (the first also loads the libraries)."""
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    assert trainer.run(first) == 0
    started = time.monotonic()
    assert trainer.run(second) == 0
    seconds = time.monotonic() - started
    assert _digest(first) == _digest(second)
    return _digest(second), seconds


def _digest(folder: Path) -> str:
    """Digest of the final weights; nothing else may be left in the folder."""
    assert {p.name for p in folder.rglob("*")} == EXPECTED_FILES
    return str(json.loads((folder / "history.json").read_text())["weights_sha256"])


@pytest.mark.slow
def test_x03_kill_at_random_moments_ends_bit_equal(
    tmp_path: Path, trainer: Trainer, whole: tuple[str, float]
) -> None:
    digest, seconds = whole
    rng = random.Random(SEED)
    killed = rounds = 0
    while killed < KILLS:
        folder = tmp_path / str(rounds)
        rounds += 1
        for _ in range(min(KILLS_PER_RUN, KILLS - killed)):
            status = trainer.run(
                folder, partial(time.sleep, rng.uniform(0, seconds)), signal.SIGKILL
            )
            killed += status == -signal.SIGKILL
        assert trainer.run(folder) == 0
        assert _digest(folder) == digest, f"RENALKIT_KILL_SEED={SEED}"
        assert rounds < 10 + 2 * KILLS, "trainings end before they are killed"
    print(f"killed {killed} times in {rounds} trainings, every one ended bit-equal")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_x04_a_polite_stop_saves_exits_130_and_resumes(
    tmp_path: Path, trainer: Trainer, whole: tuple[str, float], number: int
) -> None:
    digest, _ = whole

    def first_checkpoint() -> None:
        end = time.monotonic() + LIMIT_S
        while not list(tmp_path.glob("state/*.json")):
            assert time.monotonic() < end
            time.sleep(0.002)

    assert trainer.run(tmp_path, first_checkpoint, number) == 130
    assert (tmp_path / "state").is_dir()
    assert trainer.run(tmp_path) == 0
    assert _digest(tmp_path) == digest


def _killed_at_call(strace: str, folder: Path, call: str, nth: int) -> bool:
    """Whether the run died of the nth system call of a kind, which is answered by SIGKILL."""
    command = [
        strace,
        *("-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"),
        *("-e", f"inject={call}:signal=KILL:when={nth}"),
        *(sys.executable, str(PROGRAM), str(folder)),
    ]
    done = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, timeout=LIMIT_S, check=False
    )
    return done.returncode in (137, -signal.SIGKILL)


@pytest.mark.slow
def test_x03_kill_at_a_write_point_ends_bit_equal(
    tmp_path: Path, trainer: Trainer, whole: tuple[str, float]
) -> None:
    """fsync and rename are where a checkpoint becomes real; each run dies at one of them."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: kills INSIDE a write are NOT tested (apt: strace)")
    digest, _ = whole
    rng = random.Random(SEED + 1)
    killed = tried = rounds = 0
    while killed < max(1, KILLS // 2):
        folder = tmp_path / str(rounds)
        rounds += 1
        for _ in range(min(KILLS_PER_RUN, max(1, KILLS // 2) - killed)):
            call = rng.choice(["fsync", "/^rename"])
            killed += _killed_at_call(strace, folder, call, rng.randrange(1, 20))
            tried += 1
        assert trainer.run(folder) == 0
        assert _digest(folder) == digest, f"RENALKIT_KILL_SEED={SEED}"
        assert tried < 10 + 3 * KILLS, "trainings end before they are killed"
    print(f"killed {killed} times at a write point, every training ended bit-equal")
