"""Learning rates against torch's own schedulers and closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.learn.options import Schedule, TrainOptions
from renalkit.learn.schedule import learning_rate, plateau_decreases

OPTIONS = TrainOptions(epochs=40, lr=0.05, step_epochs=10, step_factor=0.5)


def _torch_rates(make, epochs: int) -> list[float]:  # type: ignore[no-untyped-def]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=OPTIONS.lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_step_is_the_one_of_torch() -> None:
    theirs = _torch_rates(lambda o: torch.optim.lr_scheduler.StepLR(o, 10, 0.5), 40)
    ours = [learning_rate(replace(OPTIONS, schedule="step"), e) for e in range(40)]
    assert ours == pytest.approx(theirs, rel=1e-12)


def test_cosine_is_the_one_of_torch() -> None:
    theirs = _torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40), 40)
    ours = [learning_rate(replace(OPTIONS, schedule="cosine"), e) for e in range(40)]
    assert ours == pytest.approx(theirs, rel=1e-12)


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), max_size=40), st.integers(1, 5))
def test_plateau_is_the_one_of_torch(losses: list[float], patience: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    # torch decreases when more than `patience` epochs were bad.
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience - 1, threshold=0.0, eps=0.0
    )
    for loss in losses:
        scheduler.step(loss)
    expected = -math.log2(optimizer.param_groups[0]["lr"])
    assert plateau_decreases(losses, patience) == pytest.approx(expected)


def test_plateau_skips_undefined_losses() -> None:
    assert plateau_decreases([math.nan] * 9, 2) == 0
    options = replace(OPTIONS, schedule="plateau", step_epochs=2)
    assert learning_rate(options, 5, [1, 1, 1, 1, 1]) == pytest.approx(0.05 / 4)


@pytest.mark.parametrize("name", ["constant", "cosine", "step", "plateau"])
def test_warm_up_rises_linearly_to_the_full_rate(name: Schedule) -> None:
    options = replace(OPTIONS, schedule=name, warmup_epochs=4)
    rates = [learning_rate(options, e) for e in range(5)]
    assert rates == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05])


@given(st.integers(0, 200), st.sampled_from(["constant", "cosine", "step", "plateau"]))
def test_rates_are_never_negative_nor_above_lr(epoch: int, name: Schedule) -> None:
    options = replace(OPTIONS, schedule=name, warmup_epochs=3)
    assert 0 <= learning_rate(options, epoch) <= options.lr


def test_an_epoch_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="epoch -1"):
        learning_rate(OPTIONS, -1)
