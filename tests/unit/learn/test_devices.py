"""Devices of one fold: shares of a batch, what crosses between processes, what is refused."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from renalkit.config import Settings
from renalkit.errors import ConfigError, InputRefused, ModelRefused, Reason, TrainingFailed
from renalkit.learn import devices
from renalkit.learn.data import BatchPlan, Progress, batches, epoch_order, step_share, step_slices
from renalkit.learn.devices import (
    Alone,
    Group,
    Stop,
    in_processes,
    require_devices,
    train_together,
)
from renalkit.learn.loop import task_digest
from renalkit.learn.options import TrainOptions
from renalkit.learn.outputs import Outputs, Targets
from renalkit.transforms.augment import AugmentRanges


def _tiny() -> ModuleType:
    path = Path(__file__).parents[2] / "integration" / "tiny_training.py"
    spec = importlib.util.spec_from_file_location("tiny_training", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_training"] = module
    spec.loader.exec_module(module)
    return module


tiny = _tiny()
TWO: TrainOptions = replace(tiny.OPTIONS, devices=2)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- shares


@given(st.integers(0, 500), st.integers(1, 70), st.integers(1, 9))
def test_shares_are_a_division_of_the_step(start: int, n: int, count: int) -> None:
    step = slice(start, start + n)
    shares = [step_share(step, rank, count) for rank in range(count)]
    covered = [i for share in shares for i in range(share.start, share.stop)]
    assert covered == list(range(start, start + n))
    sizes = [share.stop - share.start for share in shares]
    used = [size for size in sizes if size]
    assert max(used) - min(used) <= 1
    assert sizes[: len(used)] == used, "idle ranks come last"
    assert min(used) >= min(n, 2)
    assert count != 1 or shares[0] == step


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("threads", [0, 2])
def test_the_shares_of_all_ranks_are_the_batch_of_one_device(count: int, threads: int) -> None:
    data, train = tiny.discs(), np.arange(19)
    whole = BatchPlan(3, 8, "oversample", AugmentRanges(), threads)
    order = epoch_order(data.labels, train, whole, 5)
    steps = step_slices(len(order), 8)
    expected = list(batches(data, train, whole, 5))
    per_rank = [
        list(batches(data, train, replace(whole, rank=r, devices=count), 5)) for r in range(count)
    ]
    assert all(len(found) == len(expected) == len(steps) for found in per_rank)
    for number, step in enumerate(steps):
        rows = [step_share(step, r, count) for r in range(count)]
        parts = [per_rank[r][number] for r in range(count) if rows[r].stop > rows[r].start]
        image, targets, _ = expected[number]
        assert torch.equal(torch.cat([p[0] for p in parts]), image)
        for name in ("mask", "has_mask", "label"):
            joined = torch.cat([getattr(p[1], name) for p in parts])
            assert torch.equal(joined, getattr(targets, name))


def test_a_rank_without_a_share_gets_that_of_rank_0() -> None:
    data, train = tiny.discs(), np.arange(3)
    plans = [BatchPlan(3, 8, "plain", AugmentRanges(), 0, rank, 4) for rank in range(4)]
    found = [next(iter(batches(data, train, plan, 0)))[0] for plan in plans]
    assert all(torch.equal(image, found[0]) for image in found)


# ---- settings


class Table(Settings):
    train: TrainOptions = TrainOptions()


def test_digests_of_runs_before_several_devices_stay() -> None:
    """The settings of one device are written as they were before `batchnorm` existed."""
    plain = Table().model_dump(mode="json")["train"]
    assert "batchnorm" not in plain
    assert plain["devices"] == 1
    synced = Table.model_validate({"train": {"batchnorm": "synced"}})
    assert synced.model_dump(mode="json")["train"]["batchnorm"] == "synced"
    with pytest.raises(ValueError, match="batchnorm"):
        Table.model_validate({"train": {"batchnorm": "global"}})
    task = tiny.tiny_task()
    assert task_digest(task, tiny.OPTIONS, None) == (
        "657ee0f0e3e85b6c015b52d7d39b46602c47f653d38a9cd632faab1b4a902a95"
    )
    for other in (TWO, replace(tiny.OPTIONS, batchnorm="synced")):
        assert task_digest(task, other, None) != task_digest(task, tiny.OPTIONS, None)


def test_what_cannot_work_is_refused_all_at_once() -> None:
    require_devices(TWO)
    with pytest.raises(ConfigError) as found:
        require_devices(replace(TWO, devices=3, batch_size=5, threads=4, batchnorm="synced"))
    words = "\n".join(found.value.problems)
    assert len(found.value.problems) == 3
    for expected in ("3 devices need at least 6", "has one thread", "'synced' needs CUDA"):
        assert expected in words


def test_missing_gpus_and_used_cuda_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"train\.devices: 2; 1 CUDA devices here"):
        require_devices(TWO)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    require_devices(replace(TWO, batchnorm="synced"))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(TrainingFailed, match="has used CUDA"):
        require_devices(TWO)


# ---- exchange


def test_one_device_exchanges_nothing() -> None:
    group = Alone(Stop())
    outputs = Outputs((torch.ones(2, 1, 3, 3),), torch.ones(2, 2))
    targets = Targets(torch.ones(2, 1, 3, 3), torch.ones(2, dtype=torch.bool), torch.zeros(2))
    joined, truth = group.join(outputs, targets, slice(0, 2))
    assert joined is outputs
    assert truth is targets
    assert group.agree(True, False) == (True, False)
    assert group.first(lambda: (1.0, 2.0)) == (1.0, 2.0)
    states = {"cpu": torch.zeros(3)}
    assert group.gather(states) == [states]


def _exchange(group: Group, told: Progress) -> None:
    """All a rank does with the others; asserts reach the test as the process's status."""
    group.fabric(TWO)
    rank = group.rank
    mine = torch.full((2, 3), float(rank + 1), requires_grad=True)
    truth = Targets(
        mask=torch.full((2, 1, 2, 2), float(rank)),
        has_mask=torch.tensor([True, rank == 1]),
        label=torch.tensor([rank, -1]),
    )
    outputs, targets = group.join(Outputs(None, mine), truth, slice(4, 8))
    assert outputs.mask_logits is None
    assert outputs.class_logits is not None
    assert outputs.class_logits[:, 0].tolist() == [1.0, 1.0, 2.0, 2.0]
    assert targets.mask[:, 0, 0, 0].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert targets.has_mask.tolist() == [True, False, True, True]
    assert targets.label.tolist() == [0, -1, 1, -1]
    outputs.class_logits.pow(2).sum().backward()
    assert mine.grad is not None
    assert mine.grad.tolist() == [[2.0 * (rank + 1)] * 3] * 2
    # A batch of three is not cut: rank 1 is idle, and its stand-ins count for nothing.
    images = torch.full((3, 1), 5.0 + rank, requires_grad=True)
    three = Targets(torch.ones(3, 1, 1, 1), torch.ones(3, dtype=torch.bool), torch.ones(3).long())
    outputs, targets = group.join(Outputs(None, images), three, slice(0, 3))
    assert outputs.class_logits is not None
    assert outputs.class_logits.flatten().tolist() == [5.0, 5.0, 5.0]
    outputs.class_logits.sum().backward()
    assert images.grad is not None
    assert images.grad.flatten().tolist() == [1.0 - rank] * 3

    net = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.BatchNorm1d(1))
    net[0].weight.grad = torch.tensor([[1.0, 10.0 * rank]])
    group.sum_gradients(net)
    assert net[0].weight.grad.tolist() == [[2.0, 10.0]]
    assert net[0].bias.grad is None
    net[1].running_mean.fill_(rank + 3.0)
    net[1].num_batches_tracked.fill_(rank + 6)
    group.same(net.buffers())
    assert net[1].running_mean.item() == 3.0
    assert net[1].num_batches_tracked.item() == 6

    assert group.agree(rank == 0, rank == 1, False) == (True, True, False)
    found = group.first(lambda: (0.1, float("nan")))
    assert found[0] == 0.1
    assert found[1] != found[1]
    states = group.gather({"cpu": torch.tensor([rank, 7], dtype=torch.uint8)})
    assert [s["cpu"].tolist() for s in states] == [[0, 7], [1, 7]]

    def interrupted() -> tuple[float, ...]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="state is saved"):
        group.first(interrupted)
    told.stage("done", 2)
    told.advance(2, f"rank {rank}")


class Notes:
    def __init__(self) -> None:
        self.said: list[object] = []

    def stage(self, words: str, total: int | None = None) -> None:
        self.said.append((words, total))

    def advance(self, steps: int = 1, words: str = "") -> None:
        self.said.append((steps, words))


def test_two_ranks_exchange_and_rank_0_tells() -> None:
    notes = Notes()
    train_together(TWO, _exchange, notes)
    assert notes.said == [("done", 2), (2, "rank 0")]


# ---- processes


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_errors_keep_type_and_words_and_end_the_others(tmp_path: Path) -> None:
    def work(number: int, told: Progress, stop: Stop) -> None:
        (tmp_path / str(number)).write_text(str(os.getpid()))
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        if number == 1:
            raise ModelRefused("odd weights", where="here", expected="even", remedy="add one")
        time.sleep(60)

    with pytest.raises(ModelRefused, match=r"here: odd weights; expected: even; remedy: add one"):
        in_processes(2, work, tiny.Silent())
    assert not any(_alive(int(p.read_text())) for p in tmp_path.iterdir())


def test_another_error_becomes_a_failed_training() -> None:
    def work(number: int, told: Progress, stop: Stop) -> None:
        raise InputRefused(Reason.EMPTY, "nothing in it")

    with pytest.raises(TrainingFailed, match="nothing in it"):
        in_processes(1, work, tiny.Silent())


def test_a_process_that_dies_ends_all() -> None:
    def work(rank: int, told: Progress, stop: Stop) -> None:
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    with pytest.raises(TrainingFailed, match="device 1: its process ended with status -9"):
        in_processes(2, work, tiny.Silent())


class SignalOnce(tiny.Silent):
    def __init__(self, times: int) -> None:
        self.left = times

    def advance(self, steps: int = 1, words: str = "") -> None:
        while self.left:
            self.left -= 1
            os.kill(os.getpid(), signal.SIGINT)


def test_a_wish_to_stop_reaches_every_process(tmp_path: Path) -> None:
    def work(number: int, told: Progress, stop: Stop) -> None:
        told.advance()
        while not stop.asked:
            time.sleep(0.01)
        (tmp_path / str(number)).touch()
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="state is saved"):
        in_processes(2, work, SignalOnce(1))
    assert len(list(tmp_path.iterdir())) == 2
    assert signal.getsignal(signal.SIGINT) == before


def test_a_second_wish_does_not_wait() -> None:
    def work(number: int, told: Progress, stop: Stop) -> None:
        told.advance()
        time.sleep(60)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        in_processes(2, work, SignalOnce(2))
    assert time.monotonic() - started < 30


def test_processes_in_a_process_have_one_thread_and_stop_once(tmp_path: Path) -> None:
    """A fold in a process of its own starts its ranks from there."""

    def inner(number: int, told: Progress, stop: Stop) -> None:
        assert torch.get_num_threads() == 1
        told.advance()
        while not stop.asked:
            time.sleep(0.01)
        time.sleep(0.2)
        (tmp_path / str(number)).touch()
        raise KeyboardInterrupt

    def outer(number: int, told: Progress, stop: Stop) -> None:
        in_processes(2, inner, told)

    class Terminal(tiny.Silent):
        """What Ctrl-C in a terminal does: every process of the group gets the signal."""

        def advance(self, steps: int = 1, words: str = "") -> None:
            for child in _below(os.getpid()):
                os.kill(child, signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        in_processes(1, outer, Terminal())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "1"]


def _below(pid: int) -> list[int]:
    children = [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(c for child in children for c in _below(child))]
