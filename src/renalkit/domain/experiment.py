"""What was run, on what, with what, and how it ended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any


class Status(StrEnum):
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Digest of resolved settings, independent of key order."""
    text = json.dumps(settings, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def without_younger(plain: Mapping[str, Any], since: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as earlier versions wrote them, so that digests of earlier runs stay.

    since: settings younger than runs that exist, with the value of those runs.

    >>> without_younger({"lr": 0.1, "devices": 1}, {"devices": 1})
    {'lr': 0.1}
    """
    return {name: v for name, v in plain.items() if name not in since or v != since[name]}


def _empty() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The facts that let a run be believed and repeated; written beside its results.

    machine: processor, cores, memory, operating system; no host or user name. started, finished:
    of the last attempt (UTC). seconds: of training, all folds of all attempts.
    """

    name: str
    status: Status
    settings_digest: str
    cohort_digest: str
    split_digest: str
    versions: Mapping[str, str] = field(default_factory=_empty)
    machine: Mapping[str, str] = field(default_factory=_empty)
    started: str = ""
    finished: str = ""
    seconds: float = 0.0
    waivers: tuple[str, ...] = ()
    failure: str = ""
