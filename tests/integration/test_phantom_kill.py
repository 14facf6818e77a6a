"""Simulated cohorts may be stopped at any moment: run again, they end with equal bytes.

RENALKIT_KILLS sets how many random moments are tried as well (none by default).
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from renalkit.errors import Exit
from renalkit.phantom.ct.anatomy import CtPlan, Phase
from renalkit.phantom.patients import PatientPlan
from renalkit.usecases.phantom import make_phantom
from renalkit.usecases.phantom_plans import People, PhantomPlan, cohort_plan
from renalkit.usecases.progress import Silent

sys.path.insert(0, str(Path(__file__).parent))
from sessions import ENVIRONMENT, LIMIT_S, command, ended, start, until, workers

KILLS = int(os.environ.get("RENALKIT_KILLS", "0"))
PATIENTS = 7  # each of three stops can leave two more that are whole
COHORT = ("cohort", "-n", str(PATIENTS), "--seed", "5", "--seconds", "1", "--fps", "2", "--workers", "2")  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def of_phantom(out: Path, words: Sequence[str] = COHORT) -> list[str]:
    return ["phantom", *words, "-o", str(out)]


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def partial(out: Path) -> Path:
    return out.parent / f".{out.name}.phantom-partial"


def written(out: Path) -> dict[str, int]:
    """When each whole patient was, in the growing or the whole cohort."""
    records = [*partial(out).glob("cohort/truth/*/patient.json"), *out.glob("truth/*/patient.json")]
    return {p.parent.name: p.stat().st_mtime_ns for p in records}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of an uninterrupted run in one process."""
    out = tmp_path_factory.mktemp("whole") / "cohort"
    make_phantom(cohort_plan(People(PATIENTS, 5), clip=(1.0, 2.0, 0.0)), out, Silent(), workers=1)
    return tree(out)


def finish(whole: dict[str, bytes], out: Path) -> None:
    """The same command again: equal bytes, nothing beside them."""
    process = start(of_phantom(out))
    said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == Exit.OK, said
    assert tree(out) == whole
    assert [p.name for p in out.parent.iterdir()] == [out.name]


def test_scans_are_equal_for_any_number_of_processes(tmp_path: Path) -> None:
    scan = CtPlan(phases=(Phase.NEPHROGRAPHIC,), matrix=64, slice_spacing_mm=6.0)
    for number in (1, 2):
        make_phantom(PhantomPlan("ct", PatientPlan(2), ct=scan), tmp_path / str(number), Silent(), number)  # fmt: skip
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C reaches every process of a terminal."""
    os.killpg(process.pid, signal.SIGINT)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()


def kill_a_worker(process: subprocess.Popen[str]) -> None:
    os.kill(workers(process.pid)[0], signal.SIGKILL)


WAYS = (
    (interrupt, Exit.INTERRUPTED, "renalkit: interrupted; run the same command again to resume\n"),
    (kill, -signal.SIGKILL, ""),
    (kill_a_worker, Exit.STORE, "the same command goes on\n"),
)


def test_stopped_in_every_way_it_goes_on(whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    kept: dict[str, int] = {}
    for way, code, words in WAYS:
        process, before = start(of_phantom(out)), len(kept)
        until(lambda n=before, p=process: len(written(out)) > n and bool(workers(p.pid)), process)
        way(process)
        _, said = process.communicate(timeout=LIMIT_S)
        ended(process.pid)
        assert process.returncode == code, said
        assert said.endswith(words)
        assert "Traceback" not in said
        assert not out.exists()
        # Whole patients are kept as they are.
        assert kept.items() <= written(out).items()
        kept = written(out)
        assert 0 < len(kept) < PATIENTS
    finish(whole, out)
    assert kept.items() <= written(out).items()


@pytest.mark.parametrize("number", range(KILLS))
def test_stopped_at_a_random_moment_it_goes_on(
    whole: dict[str, bytes], tmp_path: Path, number: int
) -> None:
    draw = random.Random()  # another moment in every run
    out = tmp_path / "cohort"
    process = start(of_phantom(out))
    until(partial(out).is_dir, process)
    time.sleep(draw.uniform(0, 6))
    draw.choice((interrupt, kill))(process)
    _, said = process.communicate(timeout=LIMIT_S)
    ended(process.pid)
    assert process.returncode in (Exit.OK, Exit.INTERRUPTED, -signal.SIGKILL)
    assert "Traceback" not in said
    assert out.exists() is (process.returncode == Exit.OK)
    finish(whole, out)


def test_a_second_process_is_told_at_once(tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    partial(out).mkdir()
    with (partial(out) / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start(of_phantom(out))
        _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == Exit.LOCKED
    assert "in use" in said
    assert [p.name for p in partial(out).iterdir()] == [".lock"]


def mounted(script: str, target: Path, options: str) -> subprocess.CompletedProcess[str]:
    """Run a script with a small disk of its own mounted at the target."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed: a full disk is NOT tested")
    target.mkdir()
    text = f"mount -t tmpfs -o {options} none {target} || exit 90\n{script}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", text], env=ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT_S, check=False)  # fmt: skip
    if done.returncode in (1, 90) and "Traceback" not in done.stderr:
        pytest.skip("no private mounts here: full and read-only disks are NOT tested")
    return done


def test_a_full_disk_is_told_and_leaves_no_cohort(whole: dict[str, bytes], tmp_path: Path) -> None:
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    words = " ".join(f"'{word}'" for word in command(of_phantom(disk / "cohort")))
    script = f"""
        {words}; test $? = {int(Exit.STORE)} || exit 91
        test ! -e {disk}/cohort || exit 92
        mount -o remount,size=50m {disk} || exit 93
        {words} || exit 94
        cp -r {disk} {kept}
    """
    done = mounted(script, disk, "size=300k,nr_inodes=10000")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "write refused: the disk is full" in done.stderr
    assert tree(kept / "cohort") == whole
    assert [p.name for p in kept.iterdir()] == ["cohort"]


def test_a_read_only_disk_is_told(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    words = " ".join(f"'{word}'" for word in command(of_phantom(disk / "cohort")))
    done = mounted(f"mount -o remount,ro {disk} || exit 93\n{words}", disk, "size=50m")
    assert done.returncode == Exit.STORE, done.stderr
    assert "Traceback" not in done.stderr
    assert "Read-only file system" in done.stderr
    assert "make the folder writable" in done.stderr
