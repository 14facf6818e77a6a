"""Training a fold: same result however often it is interrupted; nothing but train/validation counts."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from renalkit.errors import StoreError, TrainingFailed
from renalkit.learn import loop
from renalkit.learn.checkpoint import load_checkpoint
from renalkit.learn.loop import FoldHistory, FoldTask, train_fold
from renalkit.learn.options import TrainOptions
from renalkit.learn.outputs import Losses, Outputs, Targets
from renalkit.learn.predictor import load_weights, predict_arrays
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
OPTIONS: TrainOptions = replace(tiny.OPTIONS, checkpoint_minutes=60.0)
RANGES = AugmentRanges()


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class StopAfter(tiny.Silent):
    """Sends this process a signal after a number of steps."""

    def __init__(self, steps: int, number: int = signal.SIGINT) -> None:
        self.left = steps
        self.number = number

    def advance(self, steps: int = 1, words: str = "") -> None:
        self.left -= steps
        if self.left == 0 and steps:
            os.kill(os.getpid(), self.number)


def _train(
    folder: Path,
    options: TrainOptions = OPTIONS,
    task: FoldTask | None = None,
    ranges: AugmentRanges | None = RANGES,
) -> FoldHistory:
    return train_fold(task or tiny.tiny_task(), options, ranges, folder, tiny.Silent())


def _figures(history: FoldHistory) -> list[tuple[float, ...]]:
    return [tuple(-1.0 if math.isnan(v) else v for v in vars_of(row)) for row in history.rows]


def vars_of(row: object) -> tuple[float, ...]:
    """Every figure but the time it took."""
    names = [name for name in row.__slots__ if name != "seconds"]  # type: ignore[attr-defined]
    return tuple(getattr(row, name) for name in names)


def test_leaves_weights_history_and_no_state(tmp_path: Path) -> None:
    history = _train(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "history.csv",
        "history.json",
        "weights.safetensors",
    ]
    assert history.epochs == 3
    assert 1 <= history.best_epoch <= 3
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,lr,train_loss,")
    assert len(lines) == 4
    net = tiny.TinyNet()
    load_weights(net, tmp_path / "weights.safetensors", history.weights_sha256)
    raw = predict_arrays(net, tiny.discs())
    assert raw["mask_logits"].shape == (26, 1, 32, 32)


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(tmp_path: Path) -> None:
    first = _train(tmp_path / "a")
    assert _train(tmp_path / "b").weights_sha256 == first.weights_sha256
    other = _train(tmp_path / "c", replace(OPTIONS, seed=8))
    assert other.weights_sha256 != first.weights_sha256


def _started() -> torch.nn.Module:
    net = tiny.TinyNet()
    net.taken = frozenset(name for name in net.state_dict() if name.startswith("stem."))
    return net


def test_layers_taken_from_an_initial_model_move_at_their_own_rate(tmp_path: Path) -> None:
    task = replace(tiny.tiny_task(), build=_started)
    moved: dict[float, tuple[float, ...]] = {}
    for rate in (0.0, 0.1, 1.0):
        options = replace(OPTIONS, optimizer="sgd", taken_rate=rate, epochs=1)
        torch.manual_seed(options.seed)
        before = _started().state_dict()
        _train(tmp_path / str(rate), options, task)
        after = load_file(tmp_path / str(rate) / "weights.safetensors")
        assert after.keys() == before.keys()

        moved[rate] = tuple(
            float((after[name] - before[name]).abs().max())
            for name in ("stem.0.weight", "label.weight")
        )
        if rate == 0:
            assert all(torch.equal(after[n], before[n]) for n in _started().taken)
    assert moved[0.0][0] == 0 < moved[0.1][0] < moved[1.0][0]
    assert min(label for _, label in moved.values()) > 0


def test_training_that_leaves_taken_layers_resumes_alike(tmp_path: Path) -> None:
    task = replace(tiny.tiny_task(), build=_started)
    for rate in (0.0, 0.1):
        options = replace(OPTIONS, taken_rate=rate)
        whole = _train(tmp_path / f"whole-{rate}", options, task)
        cut = tmp_path / f"cut-{rate}"
        with pytest.raises(KeyboardInterrupt):
            train_fold(task, options, RANGES, cut, StopAfter(4))
        assert _train(cut, options, task).weights_sha256 == whole.weights_sha256


def test_training_does_not_depend_on_the_generator_it_finds(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = _train(tmp_path / "a")
    torch.manual_seed(2)
    np.random.seed(3)  # noqa: NPY002 - the global generator is what is tested
    assert _train(tmp_path / "b").weights_sha256 == first.weights_sha256


def test_loader_threads_change_nothing(tmp_path: Path) -> None:
    digests = {
        _train(tmp_path / str(n), replace(OPTIONS, loader_threads=n)).weights_sha256
        for n in (0, 1, 2)
    }
    assert len(digests) == 1


def test_it_learns(tmp_path: Path) -> None:
    history = _train(tmp_path, replace(OPTIONS, epochs=25))
    assert history.rows[-1].train_loss < 0.7 * history.rows[0].train_loss
    assert max(row.iou for row in history.rows) > 0.5


VARIANTS = {
    "adam": OPTIONS,
    "sgd": replace(OPTIONS, optimizer="sgd", schedule="cosine", sampling="balanced"),
    "adamw": replace(OPTIONS, optimizer="adamw", weight_decay=0.01, schedule="plateau"),
    "clip": replace(OPTIONS, clip_norm=0.5, channels_last=False, schedule="step", step_epochs=1),
    "bf16": replace(OPTIONS, precision="bf16", sampling="plain", warmup_epochs=1),
    "ema": replace(OPTIONS, ema=0.9),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_x04_resume_is_bit_equal_wherever_it_was_stopped(tmp_path: Path, name: str) -> None:
    options = VARIANTS[name]
    whole = _train(tmp_path / "whole", options)
    stops = (1, 2, 3, 4, 6, 8, 9, 11) if name == "adam" else (3, 7)
    for steps in stops:
        folder = tmp_path / f"stopped-{steps}"
        number = signal.SIGTERM if steps % 2 else signal.SIGINT
        with pytest.raises(KeyboardInterrupt, match="state is saved"):
            train_fold(tiny.tiny_task(), options, RANGES, folder, StopAfter(steps, number))
        assert (folder / "state").is_dir()
        torch.manual_seed(steps)
        resumed = _train(folder, options)
        assert resumed.weights_sha256 == whole.weights_sha256
        assert _figures(resumed) == _figures(whole)
        assert resumed.notes == ()
        assert not (folder / "state").exists()


def test_stopped_after_every_step_is_still_bit_equal(tmp_path: Path) -> None:
    whole = _train(tmp_path / "whole")
    stops = 0
    while True:
        try:
            found = train_fold(tiny.tiny_task(), OPTIONS, RANGES, tmp_path / "cut", StopAfter(1))
            break
        except KeyboardInterrupt:
            stops += 1
            assert stops < 40
    assert stops >= 10
    assert found.weights_sha256 == whole.weights_sha256
    assert _figures(found) == _figures(whole)


def test_stop_during_validation_resumes_bit_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _train(tmp_path / "whole")
    plain = loop.plain_batches

    def interrupted(*given: object):
        os.kill(os.getpid(), signal.SIGINT)
        return plain(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "plain_batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "cut")
    monkeypatch.undo()
    assert _train(tmp_path / "cut").weights_sha256 == whole.weights_sha256


def test_the_handlers_of_the_caller_come_back(tmp_path: Path) -> None:
    before = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    _train(tmp_path, replace(OPTIONS, epochs=1))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_m09_a_cut_checkpoint_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = _train(tmp_path / "whole")
    folder = tmp_path / "cut"
    options = replace(OPTIONS, checkpoint_minutes=0.0)
    with pytest.raises(KeyboardInterrupt):
        train_fold(tiny.tiny_task(), options, RANGES, folder, StopAfter(6))
    newest = sorted((folder / "state").glob("*.safetensors"))[-1]
    data = newest.read_bytes()
    newest.write_bytes(data[: len(data) // 2])
    resumed = _train(folder)
    assert resumed.weights_sha256 == whole.weights_sha256
    assert len(resumed.notes) == 1
    assert newest.stem in resumed.notes[0]
    assert f"{int(newest.stem) - 1:08d} is used" in resumed.notes[0]
    assert resumed.notes[0] in caplog.text


def test_a_finished_fold_is_found_and_not_trained_again(tmp_path: Path) -> None:
    first = _train(tmp_path)
    stamp = (tmp_path / "weights.safetensors").stat().st_mtime_ns
    again = _train(tmp_path)
    assert again.weights_sha256 == first.weights_sha256
    assert _figures(again) == _figures(first)
    assert (tmp_path / "weights.safetensors").stat().st_mtime_ns == stamp


def test_a_fold_of_other_settings_is_refused(tmp_path: Path) -> None:
    _train(tmp_path / "done")
    with pytest.raises(StoreError, match="other settings"):
        _train(tmp_path / "done", replace(OPTIONS, lr=0.5))
    with pytest.raises(KeyboardInterrupt):
        train_fold(tiny.tiny_task(), OPTIONS, RANGES, tmp_path / "begun", StopAfter(2))
    with pytest.raises(StoreError, match="other settings"):
        _train(tmp_path / "begun", ranges=None)


def test_damaged_final_weights_are_not_taken_for_finished(tmp_path: Path) -> None:
    _train(tmp_path)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match="differ from their digest"):
        _train(tmp_path)


def test_l05_test_patients_decide_nothing(tmp_path: Path) -> None:
    first = _train(tmp_path / "a")
    data = tiny.discs()
    labels, masks, images = data.labels.copy(), data.masks.copy(), data.images.copy()
    labels[20:] = 1 - labels[20:]
    masks[20:] = 1 - masks[20:]
    images[20:] = 255 - images[20:]
    changed = replace(data, labels=labels, masks=masks, images=images)
    second = _train(tmp_path / "b", task=tiny.tiny_task(changed))
    assert second.weights_sha256 == first.weights_sha256
    assert _figures(second) == _figures(first)


def test_validation_labels_choose_the_epoch_but_train_nothing(tmp_path: Path) -> None:
    """Training losses stay, bit for bit, whatever the validation part says."""
    first = _train(tmp_path / "a")
    data = tiny.discs()
    labels = data.labels.copy()
    labels[14:20] = 1 - labels[14:20]
    second = _train(tmp_path / "b", task=tiny.tiny_task(replace(data, labels=labels)))
    assert [r.train_loss for r in first.rows] == [r.train_loss for r in second.rows]
    assert [r.validation_loss for r in first.rows] != [r.validation_loss for r in second.rows]


def test_without_validation_the_last_epoch_is_kept(tmp_path: Path) -> None:
    task = tiny.tiny_task(validation=np.array([], np.int64))
    history = _train(tmp_path, task=task)
    assert history.best_epoch == history.epochs == 3
    assert math.isnan(history.rows[0].validation_loss)
    assert ",,," in (tmp_path / "history.csv").read_text()
    assert json.loads((tmp_path / "history.json").read_text())["rows"][0]["iou"] is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_loss_stops_and_names_the_images(tmp_path: Path, value: float) -> None:
    calls = 0

    def failing(outputs: Outputs, targets: Targets) -> Losses:
        nonlocal calls
        calls += 1
        found = tiny.tiny_loss(outputs, targets)
        return Losses(found.total * value) if calls == 3 else found

    with pytest.raises(TrainingFailed, match=r"epoch 1, step 3 \(images s\d+\.0\.0"):
        _train(tmp_path, task=tiny.tiny_task(loss=failing))
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert failure["step"] == 3
    assert len(failure["images"]) == 4


def test_weights_that_became_nan_are_never_saved(tmp_path: Path) -> None:
    class Poison(tiny.TinyNet):
        def forward(self, image, guide=None):  # type: ignore[no-untyped-def]
            found = super().forward(image, guide)
            if self.training:
                # A value nothing depends on: the loss stays finite, the gradient is NaN.
                with torch.no_grad():
                    self.mask.bias.fill_(math.nan)
            return found

    with pytest.raises(TrainingFailed, match="NaN"):
        _train(tmp_path, replace(OPTIONS, checkpoint_minutes=0.0), tiny.tiny_task(build=Poison))
    assert load_checkpoint(tmp_path / "state").checkpoint is None


def test_ema_keeps_an_average_and_leaves_training_as_it_is(tmp_path: Path) -> None:
    plain = _train(tmp_path / "plain")
    averaged = _train(tmp_path / "ema", replace(OPTIONS, ema=0.9))
    assert [r.train_loss for r in plain.rows] == [r.train_loss for r in averaged.rows]
    assert plain.weights_sha256 != averaged.weights_sha256


def test_patience_ends_training_early(tmp_path: Path) -> None:
    options = replace(OPTIONS, epochs=40, lr=1e-9, optimizer="sgd", momentum=0.0, patience=2)
    data = tiny.discs()
    task = tiny.tiny_task(replace(data, has_mask=np.zeros(26, bool)))
    history = _train(tmp_path, replace(options, monitor="accuracy", batch_size=14), task)
    assert history.epochs < 40


def test_overlapping_or_too_small_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="in training and in validation"):
        tiny.tiny_task(validation=np.arange(10, 20))
    with pytest.raises(TrainingFailed, match="1 training images"):
        tiny.tiny_task(train=np.arange(1))


def test_threads_and_determinism_settings_are_restored(tmp_path: Path) -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    history = _train(tmp_path, replace(OPTIONS, epochs=1))
    assert history.threads == 1
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1
