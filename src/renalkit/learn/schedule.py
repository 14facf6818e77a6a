"""Which learning rate does an epoch get?

Pure functions: the rate follows from the settings and, for 'plateau', from the validation losses
so far, so that a resumed training needs no schedule state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from renalkit.learn.options import TrainOptions


def learning_rate(options: TrainOptions, epoch: int, losses: Sequence[float] = ()) -> float:
    """Learning rate of an epoch.

    Args:
        options: `lr` is the rate after warm-up and before any decrease.
        epoch: 0 is the first.
        losses: validation losses of the epochs before, for 'plateau' only.

    During `warmup_epochs` w the rate rises linearly: lr (e+1)/(w+1). After it, with e counted
    from the end of warm-up and E the number of epochs left there: constant lr; cosine
    lr (1 + cos(pi e/E))/2 (Loshchilov & Hutter, SGDR, 2017, eq. 5 with one period and minimum 0);
    step lr f**(e // step_epochs); plateau lr f**k, see `plateau_decreases`.

    >>> learning_rate(TrainOptions(lr=0.05, schedule="step", step_epochs=10), 25)
    0.0125
    """
    if epoch < 0:
        raise ValueError(f"epoch {epoch} does not exist")
    if epoch < options.warmup_epochs:
        return options.lr * (epoch + 1) / (options.warmup_epochs + 1)
    after = epoch - options.warmup_epochs
    if options.schedule == "constant":
        return options.lr
    if options.schedule == "cosine":
        total = max(1, options.epochs - options.warmup_epochs)
        return options.lr * 0.5 * (1 + math.cos(math.pi * min(after, total) / total))
    if options.schedule == "step":
        return options.lr * options.step_factor ** (after // options.step_epochs)
    return options.lr * options.step_factor ** plateau_decreases(losses, options.step_epochs)


def plateau_decreases(losses: Sequence[float], patience: int) -> int:
    """How often the rate was decreased: once per `patience` epochs in a row without a new minimum.

    Losses that are NaN (no validation part) never count as an improvement nor as its absence.

    >>> plateau_decreases([3, 2, 2, 2, 1, 1, 1], patience=2)
    2
    """
    best, waited, decreases = math.inf, 0, 0
    for loss in losses:
        if math.isnan(loss):
            continue
        if loss < best:
            best, waited = loss, 0
            continue
        waited += 1
        if waited == patience:
            decreases, waited = decreases + 1, 0
    return decreases
