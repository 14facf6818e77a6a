"""What a user asks of a run, who helps, and what is written down when it is complete, whatever it
trains."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from renalkit.domain.experiment import RunRecord, Status
from renalkit.store.files import read_json
from renalkit.store.runs import RunFolder, machine_facts, package_versions, save_record
from renalkit.store.splits import load_split

Beside = Callable[[RunFolder], None]
"""Adds to a run with figures what its report shall show too."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the user asked for. processes: folds trained at the same time. init_from: RUN/SYSTEM
    that all systems start from, or LABEL=RUN/SYSTEM for one."""

    experiment: Path
    output: Path
    overrides: tuple[str, ...] = ()
    waive: tuple[str, ...] = ()
    processes: int = 1
    init_from: tuple[str, ...] = ()


@contextmanager
def other_processes(request: RunRequest) -> Generator[list[subprocess.Popen[bytes]]]:
    """Further processes at the same run, as many as asked for; ended with the block."""
    helpers = [_helper(request) for _ in range(request.processes - 1)]
    try:
        yield helpers
    finally:
        for child in helpers:
            child.terminate()


def _helper(request: RunRequest) -> subprocess.Popen[bytes]:
    """Another process at the same run: folds are claimed by lock, so both take different ones."""
    command = [sys.executable, "-m", "renalkit", "train", str(request.experiment)]
    command += ["-o", str(request.output)]
    for item in request.init_from:
        command += ["--init-from", item]
    for item in request.overrides:
        command += ["--set", item]
    for item in request.waive:
        command += ["--waive", item]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603


def keep_record(folder: RunFolder, name: str, seconds: float, since: datetime) -> None:
    """Write down what made a run complete. seconds: of training."""
    record = RunRecord(
        name=name,
        status=Status.COMPLETE,
        settings_digest=read_json(folder.experiment_json)["digest"],
        cohort_digest=read_json(folder.cohort)["digest"],
        split_digest=load_split(folder.folds).digest,
        versions=package_versions(),
        machine=machine_facts(),
        started=since.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        waivers=tuple(read_json(folder.check)["waivers"]),
    )
    save_record(folder, record)
