"""How does an interrupted training go on where it stopped, even when the last write was cut?

A checkpoint is a generation: tensors in ``NNNNNNNN.safetensors`` and, written after them, plain
values in ``NNNNNNNN.json`` with the digests of both. The last two generations are kept. A
generation that does not match its digests is not used; the one before it is, and that is said.
Nothing is pickled.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from torch import Tensor

from renalkit.errors import InputRefused, StoreError
from renalkit.store.files import (
    clean_temporaries,
    make_folder,
    parse_json,
    sha256_bytes,
    sha256_file,
    write_json,
    write_with,
)

log = logging.getLogger(__name__)

SCHEMA = 1
KEPT = 2
_NAME = re.compile(r"(\d{8})\.(json|safetensors)")


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """State of a training: tensors by name, and values that strict JSON can hold."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A usable checkpoint, and words on the generations that were not."""

    checkpoint: Checkpoint | None
    number: int
    notes: tuple[str, ...]


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, allow_nan=False).encode()


def _numbers(folder: Path) -> list[int]:
    """Generations of which any file is there, newest first."""
    if not folder.is_dir():
        return []
    found = {int(m[1]) for path in folder.iterdir() if (m := _NAME.fullmatch(path.name))}
    return sorted(found, reverse=True)


def _paths(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"{number:08d}.safetensors", folder / f"{number:08d}.json"


def save_checkpoint(folder: Path, number: int, checkpoint: Checkpoint) -> None:
    """Write generation `number` durably, then remove those older than the one before it.

    Args:
        folder: holds nothing but checkpoints.
        number: larger than every number already there.
        checkpoint: tensors must be contiguous, on the CPU and not share memory.

    Raises:
        StoreError: the disk refused; earlier generations are untouched.
    """
    tensors, values = _paths(make_folder(folder), number)
    write_with(tensors, lambda temporary: save_file(dict(checkpoint.tensors), temporary))
    body = {
        "schema": SCHEMA,
        "tensors_sha256": sha256_file(tensors),
        "tensors_bytes": tensors.stat().st_size,
        "values": dict(checkpoint.values),
    }
    write_json(values, {"body": body, "body_sha256": sha256_bytes(_canonical(body))})
    for old in _numbers(folder)[KEPT:]:
        _remove(folder, old)


def _remove(folder: Path, number: int) -> None:
    tensors, values = _paths(folder, number)
    # The values go first: tensors alone are never taken for a checkpoint.
    values.unlink(missing_ok=True)
    tensors.unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> Found:
    """The newest generation that is whole; none (checkpoint None) is not an error.

    Generations that are not whole are named in `notes` and in the log, and removed. A generation
    without its values file is a write that did not end: it never counted and is removed silently.

    Raises:
        StoreError: the checkpoint is whole but of a newer format than this version knows.
    """
    if not folder.is_dir():
        return Found(None, 0, ())
    clean_temporaries(folder)
    damaged: list[str] = []
    for number in _numbers(folder):
        tensors, values = _paths(folder, number)
        if not values.exists():
            _remove(folder, number)
            continue
        try:
            checkpoint = _read(tensors, values)
        except (InputRefused, OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            damaged.append(f"checkpoint {number:08d} is damaged ({str(error)[:160]})")
            _remove(folder, number)
            continue
        notes = tuple(f"{words}; checkpoint {number:08d} is used" for words in damaged)
        for words in notes:
            log.warning("%s", words)
        return Found(checkpoint, number, notes)
    notes = tuple(f"{words}; no other is there, training starts again" for words in damaged)
    for words in notes:
        log.warning("%s", words)
    return Found(None, 0, notes)


def _read(tensors: Path, values: Path) -> Checkpoint:
    plain = parse_json(values.read_bytes(), where=values.name)
    body = plain["body"]
    if sha256_bytes(_canonical(body)) != plain["body_sha256"]:
        raise ValueError("values differ from their digest")
    if body["schema"] > SCHEMA:
        raise StoreError(
            f"checkpoint of format {body['schema']}",
            where=values.name,
            expected=f"at most {SCHEMA}",
            remedy="go on with the version of renalkit that wrote it, or remove the folder",
        )
    data = tensors.read_bytes()
    if len(data) != body["tensors_bytes"] or sha256_bytes(data) != body["tensors_sha256"]:
        raise ValueError(f"{len(data)} bytes of tensors differ from their digest")
    return Checkpoint(load_tensors(data), body["values"])
