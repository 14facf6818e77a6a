"""Which weights of a trained network may start another one, and what stays as it was drawn?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from renalkit.errors import ModelRefused
from renalkit.learn.outputs import Net
from renalkit.learn.pretrained import read_weights

CLASS_HEADS = ("fc.", "classifier.", "branches.", "classification.fc.")
"""Names of the layers that give class logits: they answer the question of the earlier run."""
LEVELS = (".bias", ".cuts")
"""Ends of the names of their thresholds: another cohort has other shares of the classes."""
BESIDE = ".beside"
"""End of the names of their weights on numbers beside the picture."""
NUMBERS = "numbers."
"""Names of the branch for numbers beside the picture."""
NUMBER_STATISTICS = ("numbers.mean", "numbers.spread")
"""Mean and spread of those numbers: of whichever patients a network is trained on."""
LEAST_SHARE = 0.5
"""Least share of the weights outside class heads and numbers that must fit."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a network took from another one's weights, by tensor name.

    taken: copied bit for bit, among them the class heads where asked for. heads, numbers: left out
    by rule. unmatched: of the network, without a tensor of that name, shape and type in the file.
    """

    taken: tuple[str, ...]
    heads: tuple[str, ...]
    numbers: tuple[str, ...]
    unmatched: tuple[str, ...]

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON values; what was taken as a number."""
        return {
            "taken": len(self.taken),
            "class_heads_left_out": list(self.heads),
            "number_branch_left_out": list(self.numbers),
            "unmatched": list(self.unmatched),
        }


def start_from(
    net: Net, path: Path, sha256: str, *, same_numbers: bool, heads_too: bool = False
) -> Taken:
    """Start a network from the weights of an earlier one.

    Tensors of the same name, shape and type are taken, those of batch normalisation too; a network
    of one modality takes its own from a fused one (`Net.held_in`). `net.taken` names them. Class
    heads stay as they were drawn unless asked for; their thresholds then begin as they were but are
    not named in `net.taken`. Mean and spread of numbers beside the picture are never taken, and the
    layers behind them only where both networks read the same numbers.

    Args:
        net: changed in place only when enough fits.
        path: a safetensors file of an earlier run.
        sha256: of that file.
        same_numbers: whether both networks are given the same numbers in the same order.
        heads_too: take the class heads; the caller knows that both answer the same question.

    Raises:
        ModelRefused: missing file, another digest, not safetensors, NaN or infinity, less than half
            of the weights fit (another architecture), or class heads that do not, where asked for.
    """
    given = read_weights(path, sha256)
    given |= {name: given[theirs] for name, theirs in net.held_in(given).items()}
    own = cast("dict[str, Tensor]", net.state_dict())
    every = [name for name in own if name.startswith(CLASS_HEADS)]
    heads = () if heads_too else tuple(every)
    numbers = tuple(
        name
        for name in own
        if (name.startswith(NUMBERS) and (name in NUMBER_STATISTICS or not same_numbers))
        or (name.endswith(BESIDE) and heads_too and not same_numbers)
    )
    asked = [name for name in own if name not in {*heads, *numbers}]
    fits = [name for name in asked if _like(own[name], given.get(name))]
    share = _size(own, fits) / max(1, _size(own, asked))
    if share < LEAST_SHARE:
        raise ModelRefused(
            f"{share:.0%} of the weights fit ({len(fits)} of {len(asked)} tensors)",
            where=path.name,
            expected=f"at least {LEAST_SHARE:.0%} with the same names and shapes",
            remedy="start from a system with the same backbone and parameters",
        )
    without = [name for name in every if name in asked and name not in fits]
    if without:
        raise ModelRefused(
            f"class layers that do not fit: {', '.join(without)}",
            where=path.name,
            expected="the classes and the kind of class layer of this network",
            remedy="leave taken_heads off",
        )
    net.load_state_dict({name: given[name] for name in fits}, strict=False)
    net.taken = frozenset(n for n in fits if not (n in every and n.endswith(LEVELS)))
    unmatched = tuple(name for name in asked if name not in set(fits))
    return Taken(tuple(fits), heads, numbers, unmatched)


def _like(own: Tensor, given: Tensor | None) -> bool:
    return given is not None and given.shape == own.shape and given.dtype == own.dtype


def _size(tensors: dict[str, Tensor], names: Sequence[str]) -> int:
    return sum(tensors[name].numel() for name in names)
