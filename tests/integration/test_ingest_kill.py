"""Ingest may be killed at any moment and the disk may fill up: run again, it ends with equal bytes.

RENALKIT_KILLS sets how many random moments are tried (6 by default, 100 before a release):

    RENALKIT_KILLS=100 pytest tests/integration/test_ingest_kill.py
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from renalkit.errors import Exit
from renalkit.usecases.ingest import request_of, run_ingest

KILLS = int(os.environ.get("RENALKIT_KILLS", "6"))
LIMIT_S = 120
PICTURES = 60
STRACE = shutil.which("strace")
FINISHED = (Exit.OK, Exit.PARTIAL)


@dataclass(frozen=True)
class Case:
    """A source, the key every run shares, the uninterrupted result and how long it works."""

    source: Path
    key: Path
    reference: dict[str, bytes]
    links: bytes
    work_s: float


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


def command(case_source: Path, output: Path, key: Path) -> list[str]:
    code = "from renalkit.cli import main; main()"
    return [sys.executable, "-c", code, "ingest", str(case_source), "-o", str(output), "--key-file", str(key)]  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


SERVE = """
import os, sys
import renalkit.usecases.ingest
quiet = os.open(os.devnull, os.O_WRONLY)
from renalkit.cli import main
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(quiet, 1)
        sys.argv = ["renalkit", *line.rstrip("\\n").split("\\t")]
        main()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Starter:
    """A process that has the libraries and runs each command in a child of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ingest(self, source: Path, output: Path, key: Path, kill_after_s: float | None = None) -> tuple[int, float]:  # fmt: skip
        """Exit status of an ingest, and the seconds from when it held its folder to its end.

        kill_after_s: it is killed when it has held its folder that long.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        words = ("ingest", source, "-o", output, "--key-file", key)
        self.process.stdin.write("\t".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        end = time.monotonic() + LIMIT_S
        while not (output / ".lock").exists():
            assert time.monotonic() < end
            time.sleep(0.002)
        start = time.perf_counter()
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            with suppress(ProcessLookupError):  # it may have ended already
                os.kill(child, signal.SIGKILL)
        return int(self.process.stdout.readline()), time.perf_counter() - start

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(LIMIT_S)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def starter() -> Generator[Starter]:
    made = Starter()
    yield made
    made.close()


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, starter: Starter) -> Case:
    root = tmp_path_factory.mktemp("kill")
    source, key = root / "in", root / "safe" / "project.key"
    rng = np.random.default_rng(3)
    for folder in ("images", "masks"):
        (source / folder).mkdir(parents=True)
    rows = ["patient,image,label"]
    for n in range(PICTURES):
        Image.fromarray(rng.integers(0, 255, (24, 32), dtype=np.uint8)).save(
            source / f"images/i{n:02d}.png"
        )
        mask = np.zeros((24, 32), np.uint8)
        mask[5:15, 5:15] = 255
        Image.fromarray(mask).save(source / f"masks/i{n:02d}.png")
        rows.append(f"P{n // 2:03d},i{n:02d}.png,{('benign', 'malignant')[n // 2 % 2]}")
    (source / "images" / "bad.png").write_bytes(b"not a picture")
    (source / "labels.csv").write_text("\n".join(rows) + "\n")
    code, work_s = starter.ingest(source, root / "timed", key)
    assert code in FINISHED
    output = root / "whole" / "cohort"
    run_ingest(request_of(source=source, output=output, key_file=key))
    links = (root / "whole" / "cohort.keys" / "links.csv").read_bytes()
    return Case(source, key, tree(output), links, work_s)


def finish(case: Case, output: Path) -> int:
    """Run to the end in this process; the number of results taken over from the killed run."""
    staged = len(list((output.parent / f"{output.name}.keys" / "staged").glob("[!.]*.json")))
    report = run_ingest(request_of(source=case.source, output=output, key_file=case.key))
    assert report.recalled == staged, "a finished study was lost"
    assert tree(output) == case.reference
    assert (output.parent / f"{output.name}.keys" / "links.csv").read_bytes() == case.links
    return staged


def test_X01_killed_at_random_moments(case: Case, starter: Starter, tmp_path: Path) -> None:
    rng = random.Random()  # other moments in every run
    taken_over: list[int] = []
    for number in range(KILLS):
        output = tmp_path / str(number) / "cohort"
        starter.ingest(case.source, output, case.key, rng.uniform(0, case.work_s))
        taken_over.append(finish(case, output))
        shutil.rmtree(tmp_path / str(number))
    print(f"{KILLS} kills; results taken over: {sorted(taken_over)}")


def test_X01_killed_again_and_again_it_still_gets_done(
    case: Case, starter: Starter, tmp_path: Path
) -> None:
    output = tmp_path / "cohort"
    for _ in range(4):
        (output / ".lock").unlink(missing_ok=True)
        starter.ingest(case.source, output, case.key, case.work_s / 5)
    finish(case, output)


def _traced(case: Case, output: Path, inject: Sequence[str]) -> int:
    assert STRACE is not None
    arguments = [
        STRACE,
        "-f",
        "-qq",
        "-o",
        os.devnull,
        *inject,
        *command(case.source, output, case.key),
    ]
    done = subprocess.run(
        arguments, env=environment(), capture_output=True, timeout=240, check=False
    )
    return done.returncode


@pytest.mark.skipif(
    STRACE is None, reason="strace is not installed: kills inside system calls are NOT tested"
)
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_X02_killed_inside_a_system_call(case: Case, tmp_path: Path, call: str) -> None:
    """The call is entered, never done: the power went out just before it took effect."""
    rng = random.Random()
    moments = sorted({1, *(rng.randrange(1, 100) for _ in range(max(1, KILLS // 6)))})
    for moment in moments:
        output = tmp_path / str(moment) / "cohort"
        inject = [
            "-e",
            f"trace={call}",
            "-e",
            f"inject={call}:error=EINTR:signal=SIGKILL:when={moment}",
        ]
        code = _traced(case, output, inject)
        if code == 1 and not output.exists():
            pytest.skip("tracing is not permitted here: kills inside system calls are NOT tested")
        assert code not in FINISHED, f"{call} {moment} was never reached"
        finish(case, output)


def _may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    words = ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_X10_a_disk_that_is_really_full(case: Case, tmp_path: Path) -> None:
    if not _may_mount():
        pytest.skip("no private mounts here: a really full disk is NOT tested")
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    words = " ".join(f"'{w}'" for w in command(case.source, disk / "cohort", case.key))
    script = f"""
        mount -t tmpfs -o size=300k,nr_inodes=10000 none {disk} || exit 90
        {words}; test $? = {int(Exit.STORE)} || exit 91
        test ! -e {disk}/cohort/cohort.toml || exit 92
        mount -o remount,size=50m {disk} || exit 93
        {words} || test $? = {int(Exit.PARTIAL)} || exit 94
        cp -r {disk} {kept}
    """
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], env=environment(), capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the disk is full" in done.stderr
    assert tree(kept / "cohort") == case.reference


def test_ctrl_c_ends_it_at_once_and_resumably(case: Case, tmp_path: Path) -> None:
    output = tmp_path / "cohort"
    # Parallel test runners ignore SIGINT, and a child would inherit that.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from renalkit.cli import main; main()"
    )
    words = ["ingest", str(case.source), "-o", str(output), "--key-file", str(case.key)]
    arguments = [sys.executable, "-c", code, *words]
    process = subprocess.Popen(arguments, env=environment(), stderr=subprocess.PIPE, text=True)
    while not (output / ".lock").exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED
    assert said.endswith("renalkit: interrupted; run the same command again to resume\n")
    assert not list(output.rglob(".tmp-*"))
    finish(case, output)
