"""What does a training leave in its folder, and what must agree before it goes on?

While it works: ``history.csv``, and checkpoints below ``state/``. At its end ``history.json`` and
``weights.safetensors``; then ``state/`` goes. After a failure ``failure.json`` names the images.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from renalkit.errors import StoreError
from renalkit.store.files import read_json, sha256_file

log = logging.getLogger(__name__)

STATE = "state"
WEIGHTS = "weights.safetensors"
HISTORY_TABLE = "history.csv"
HISTORY = "history.json"
FAILURE = "failure.json"


def finished(folder: Path, digest: str) -> dict[str, Any] | None:
    """What ``history.json`` says of a training that ended; None where none did.

    Raises:
        StoreError: it was of other settings, or the weights are not those it speaks of.
    """
    path = folder / HISTORY
    if not path.exists():
        return None
    plain = read_json(path)
    if plain["digest"] != digest:
        raise foreign(folder)
    weights = folder / WEIGHTS
    if not weights.exists() or sha256_file(weights) != plain["weights_sha256"]:
        raise StoreError(
            "weights are missing or differ from their digest",
            where=f"{folder.name}/{WEIGHTS}",
            expected=plain["weights_sha256"][:16],
            remedy=f"remove {HISTORY} of this fold to train it again",
        )
    remove_state(folder)
    return plain


def foreign(folder: Path) -> StoreError:
    """Somebody else's training lies in this folder."""
    return StoreError(
        "this fold was begun under other settings, images or labels",
        where=folder.name,
        expected="the same experiment",
        remedy="give the changed experiment another name, or remove the fold folder",
    )


def remove_state(folder: Path) -> None:
    """Checkpoints that nobody needs any more."""
    shutil.rmtree(folder / STATE, ignore_errors=True)


def here(device: torch.device, precision: str = "") -> dict[str, Any]:
    """What a training depends on beside its settings: its last digits on all but the precision,
    given where the settings leave it to the machine."""
    found = {
        "threads": torch.get_num_threads(),
        "device": device.type,
        "torch": torch.__version__,
    }
    return found | ({"precision": precision} if precision else {})


def moved(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Words on what is different from where a training began; they are logged too. Both: as `here`
    gave them."""
    notes: list[str] = []
    for name, value in now.items():
        if before[name] != value:
            words = f"resumed with {name} {value} after {before[name]}"
            if name != "precision":
                words += ": last digits may differ"
            notes.append(words)
            log.warning("%s", words)
    return notes


def under(tensors: Any, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser by 'optimizer/parameter/name', plain tensors on the CPU."""
    found: dict[str, Tensor] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                plain = value.detach().cpu().contiguous().clone()
                found[f"optimizer/{index}/{name}"] = plain
    return found


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave, names without 'optimizer/'."""
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, value in tensors.items():
        index, _, part = name.partition("/")
        like = parameters[int(index)]
        if value.shape == like.shape:
            # Same memory layout as the weight, as in the uninterrupted run.
            value = torch.empty_like(like).copy_(value)
        state.setdefault(int(index), {})[part] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


@contextmanager
def torch_settings(threads: int, *, deterministic: bool) -> Generator[None]:
    """Threads (0 leaves them) and determinism for a training only; restored afterwards."""
    before = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    # A property the stub does not know.
    memory = cast("Any", torch.utils.deterministic)
    fill = memory.fill_uninitialized_memory
    if threads:
        torch.set_num_threads(threads)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Filling new memory finds reads of it in tests; here it costs a tenth of the time.
        memory.fill_uninitialized_memory = False
        torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = not deterministic
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
