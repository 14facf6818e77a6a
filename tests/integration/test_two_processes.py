"""One fold on two (and three) CPU processes: what it equals, and what stops or kills it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from renalkit.errors import StoreError, TrainingFailed
from renalkit.learn import loop
from renalkit.learn.checkpoint import load_checkpoint
from renalkit.learn.loop import FoldHistory, FoldTask, train_fold
from renalkit.learn.options import TrainOptions
from renalkit.learn.outputs import Guide, Losses, Outputs, Targets
from renalkit.transforms.augment import AugmentRanges

LIMIT_S = 120


def _tiny() -> ModuleType:
    path = Path(__file__).with_name("tiny_training.py")
    spec = importlib.util.spec_from_file_location("tiny_training", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_training"] = module
    spec.loader.exec_module(module)
    return module


tiny = _tiny()
# 16 images an epoch in steps of 5, 5, 6: unequal shares.
OPTIONS: TrainOptions = replace(tiny.OPTIONS, batch_size=5, devices=2, checkpoint_minutes=60.0)
KILLED = replace(OPTIONS, checkpoint_minutes=0.0, epochs=12)
RANGES = AugmentRanges()


@pytest.fixture(autouse=True)
def _one_thread() -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Steady(tiny.TinyNet):
    """No dropout, and the normalisation keeps its first statistics: shares change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Identity()

    def train(self, mode: bool = True) -> Steady:
        super().train(mode)
        self.stem[1].eval()
        return self


class Plain(tiny.TinyNet):
    """Neither dropout nor normalisation; the label needs no mask head."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Identity()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.Tanh())


def _train(
    folder: Path, options: TrainOptions = OPTIONS, task: FoldTask | None = None, **told: Any
) -> FoldHistory:
    progress = told.get("progress", tiny.Silent())
    return train_fold(task or tiny.tiny_task(), options, RANGES, folder, progress)


def _figures(history: FoldHistory) -> list[list[float]]:
    return [
        [getattr(row, name) for name in row.__slots__ if name != "seconds"] for row in history.rows
    ]


def _weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "weights.safetensors")


EQUAL = {
    "sgd": replace(OPTIONS, optimizer="sgd", lr=0.05),
    "adam": replace(OPTIONS, lr=1e-3),
    "clip": replace(OPTIONS, optimizer="sgd", lr=0.05, clip_norm=0.1, schedule="plateau"),
    "ema": replace(OPTIONS, lr=1e-3, ema=0.9, sampling="balanced"),
    "idle": replace(OPTIONS, optimizer="sgd", lr=0.05, devices=3, batch_size=7, sampling="plain"),
}


@pytest.mark.parametrize("net", [Steady, Plain])
@pytest.mark.parametrize("name", EQUAL)
def test_without_batch_statistics_and_dropout_it_equals_one_device(
    tmp_path: Path, name: str, net: type[nn.Module]
) -> None:
    """Images without a reference mask make the loss of a batch differ from the mean of shares."""
    options = EQUAL[name]
    # 17 images in steps of 7, 7, 3: the last one leaves two ranks of three without a share.
    n_train = 17 if name == "idle" else 14
    task = tiny.tiny_task(
        build=net, train=np.arange(n_train), validation=np.arange(n_train, n_train + 6)
    )
    one = _train(tmp_path / "one", replace(options, devices=1), task)
    several = _train(tmp_path / "several", options, task)
    assert several.devices == options.devices
    np.testing.assert_allclose(_figures(several), _figures(one), atol=1e-5, rtol=0)
    alone, together = _weights(tmp_path / "one"), _weights(tmp_path / "several")
    assert alone.keys() == together.keys()
    moved = 0.0
    start = _start(net)
    for key, value in alone.items():
        torch.testing.assert_close(together[key], value, atol=1e-5, rtol=0)
        moved = max(moved, float((value - start[key]).abs().max()))
    assert moved > 1e-3, "nothing was trained"


def _start(net: type[nn.Module]) -> dict[str, Tensor]:
    torch.manual_seed(OPTIONS.seed)
    return net().state_dict()


@pytest.mark.parametrize("count", [2, 3])
def test_all_ranks_hold_the_same_after_every_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Weights, batch statistics, average of the weights, optimiser, rows: on every rank."""
    training: Any = loop._Training
    end_epoch = training._end_epoch

    def noted(self: Any, row: Any, candidate: Any) -> None:
        end_epoch(self, row, candidate)
        digest = hashlib.sha256()
        states = self.optimizer.state_dict()["state"].values()
        tensors = [
            *self.net.state_dict().values(),
            *self.average.values(),
            *(v for state in states for v in state.values()),
            self.sums,
        ]
        for tensor in tensors:
            digest.update(tensor.detach().contiguous().numpy().tobytes())
        figures = [getattr(r, n) for r in self.rows for n in r.__slots__ if n != "seconds"]
        digest.update(json.dumps(figures).encode())
        dropout = hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()
        path = tmp_path / f"{self.epoch}-{self.group.rank}"
        path.write_text(f"{digest.hexdigest()} {dropout}")

    monkeypatch.setattr(training, "_end_epoch", noted)
    _train(tmp_path / "fold", replace(OPTIONS, ema=0.9, batch_size=6, devices=count))
    for epoch in (1, 2, 3):
        found = [(tmp_path / f"{epoch}-{rank}").read_text().split() for rank in range(count)]
        assert len({state for state, _ in found}) == 1
        assert len({dropout for _, dropout in found}) == count


def test_it_writes_what_one_device_writes_and_nothing_else(tmp_path: Path) -> None:
    history = _train(tmp_path)
    files = {p.name for p in tmp_path.rglob("*")}
    assert files == {"history.csv", "history.json", "weights.safetensors"}
    assert (history.devices, history.threads, history.epochs) == (2, 1, 3)
    again = _train(tmp_path)
    assert again == history
    with pytest.raises(StoreError, match="other settings"):
        _train(tmp_path, replace(OPTIONS, devices=1))


def test_patience_ends_all_ranks(tmp_path: Path) -> None:
    options = replace(OPTIONS, epochs=60, lr=1e-9, optimizer="sgd", patience=2, monitor="accuracy")
    assert _train(tmp_path, replace(options, momentum=0.0)).epochs < 60


class SignalAfter(tiny.Silent):
    def __init__(self, steps: int, number: int = signal.SIGINT) -> None:
        self.left, self.number = steps, number

    def advance(self, steps: int = 1, words: str = "") -> None:
        self.left -= steps
        if self.left == 0 and steps:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("name", ["adam", "ema", "bf16"])
def test_a_stopped_training_resumes_bit_equal(tmp_path: Path, name: str) -> None:
    options = {
        "adam": OPTIONS,
        "ema": replace(OPTIONS, ema=0.9, devices=3, batch_size=7, clip_norm=1.0),
        "bf16": replace(OPTIONS, precision="bf16", optimizer="sgd"),
    }[name]
    whole = _train(tmp_path / "whole", options)
    for steps, number in ((1, signal.SIGINT), (4, signal.SIGTERM)):
        folder = tmp_path / f"cut-{steps}"
        with pytest.raises(KeyboardInterrupt, match="state is saved"):
            _train(folder, options, progress=SignalAfter(steps, number))
        found = load_checkpoint(folder / "state").checkpoint
        assert found is not None
        assert {f"rng/{r}/cpu" for r in range(1, options.devices)} < set(found.tensors)
        with pytest.raises(StoreError, match="other settings"):
            _train(folder, replace(options, devices=1))
        resumed = _train(folder, options)
        assert resumed.weights_sha256 == whole.weights_sha256
        assert repr(_figures(resumed)) == repr(_figures(whole))
        assert resumed.notes == ()


def test_a_stop_during_validation_reaches_all_and_resumes_bit_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _train(tmp_path / "whole")
    plain = loop.plain_batches

    def slow(*given: Any) -> Any:
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(2 * 0.5 + 0.5)  # the caller passes the wish on when it next looks
        return plain(*given)

    monkeypatch.setattr(loop, "plain_batches", slow)
    with pytest.raises(KeyboardInterrupt, match="state is saved"):
        _train(tmp_path / "cut")
    monkeypatch.undo()
    assert _train(tmp_path / "cut").weights_sha256 == whole.weights_sha256


def test_a_non_finite_loss_on_one_rank_names_the_batch(tmp_path: Path) -> None:
    calls = 0

    class Failing(Plain):
        def forward(self, image: Tensor, guide: Guide | None = None) -> Outputs:
            nonlocal calls
            calls += 1
            found = super().forward(image, guide)
            if calls == 2 and os.environ.get("MASTER_PORT") and len(image) == 3:
                return Outputs(found.mask_logits, found.class_logits * math.nan)
            return found

    with pytest.raises(TrainingFailed, match=r"epoch 1, step 2 \(images s\d+\.0\.0"):
        _train(tmp_path, task=tiny.tiny_task(build=Failing))
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert failure["step"] == 2
    assert len(failure["images"]) == 5


def test_a_loss_that_breaks_ends_all_with_words(tmp_path: Path) -> None:
    def breaking(outputs: Outputs, targets: Targets) -> Losses:
        raise StoreError("no room", where="somewhere")

    with pytest.raises(StoreError, match="somewhere: no room"):
        _train(tmp_path, task=tiny.tiny_task(loss=breaking))


# ---- killed


def _start_caller(folder: Path) -> int:
    """A training in a process of its own, so that its caller can be killed; its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        _train(folder, KILLED)
        status = 0
    except KeyboardInterrupt:
        status = 130
    except TrainingFailed as error:
        (folder.parent / "words").write_text(str(error))
    finally:
        os._exit(status)


def _end(caller: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(caller, 0)[1])


def _ranks(caller: int) -> list[int]:
    path = Path(f"/proc/{caller}/task/{caller}/children")
    return [int(pid) for pid in path.read_text().split()]


def _wait_for(what: Any) -> None:
    end = time.monotonic() + LIMIT_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of the training that nothing disturbed."""
    return _train(tmp_path_factory.mktemp("whole"), KILLED).weights_sha256


@pytest.mark.parametrize("victim", ["caller", "rank 0", "rank 1", "group"])
def test_x03_killed_or_stopped_it_ends_bit_equal_and_leaves_no_process(
    tmp_path: Path, digest: str, victim: str
) -> None:
    folder = tmp_path / "cut"
    caller = _start_caller(folder)
    _wait_for(lambda: list(folder.glob("state/*.json")))
    ranks = _ranks(caller)
    assert len(ranks) == 2, "the caller computes nothing, each device has one process"
    if victim == "group":  # Ctrl-C in a terminal
        for pid in (*ranks, caller):
            os.kill(pid, signal.SIGINT)
    else:
        os.kill(caller if victim == "caller" else ranks[int(victim[-1])], signal.SIGKILL)
    assert _end(caller) == {"caller": -9, "group": 130}.get(victim, 1)
    if victim.startswith("rank"):
        assert "status -9" in (tmp_path / "words").read_text()
    _wait_for(lambda: all(_gone(pid) for pid in ranks))
    assert (folder / "state").is_dir()
    assert _train(folder, KILLED).weights_sha256 == digest
    assert {p.name for p in folder.rglob("*")} == {
        "history.csv",
        "history.json",
        "weights.safetensors",
    }
