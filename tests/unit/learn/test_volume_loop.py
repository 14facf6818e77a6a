"""Training on volumes: same result however often it is interrupted; the best weights are kept."""

import json
import math
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from renalkit.domain.volume import CYST, KIDNEY, TUMOUR
from renalkit.errors import ConfigError, InputRefused, ModelRefused, StoreError, TrainingFailed
from renalkit.learn.checkpoint import load_checkpoint
from renalkit.learn.nets.volume_resnet import VolumeResNet, VolumeResNetPlan
from renalkit.learn.nets.volume_unet import VolumeUNet, VolumeUNetPlan
from renalkit.learn.outputs import Outputs
from renalkit.learn.patches import CropPlan, HeldVolume, LesionCrops, Patches, PatchPlan
from renalkit.learn.volume_loop import VolumeTask, train_volume
from renalkit.learn.volume_losses import MASS, WHOLE_KIDNEY, MaskLossPlan, class_loss, mask_loss
from renalkit.learn.volume_options import VolumeOptions, volume_rate
from renalkit.learn.volume_predictor import load_volume_net, volume_scorer

OPTIONS = VolumeOptions(
    steps=7,
    lr=1e-2,
    warmup_steps=2,
    validate_steps=3,
    log_steps=2,
    device="cpu",
    threads=1,
    checkpoint_minutes=60.0,
    seed=3,
)
UNET = VolumeUNetPlan((3, 4, 5), ((1, 2, 2), (2, 2, 2)), n_outputs=2)
RESNET = VolumeResNetPlan(width=0.0625, n_classes=2)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scan(seed, kind=TUMOUR):
    """A bright kidney with a grey mass, or a dark one where it is a cyst."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((10, 18, 18))
    labels = np.zeros(z.shape, np.uint8)
    labels[(z - 5) ** 2 * 3 + (y - 9) ** 2 + (x - 9) ** 2 < 60] = KIDNEY
    labels[(z - 5) ** 2 * 3 + (y - 7) ** 2 + (x - 11) ** 2 < 18] = kind
    level = np.array([-100, 180, 90, 0])[labels]
    hu = ndimage.gaussian_filter(level + rng.normal(0, 15, z.shape), 0.5).astype(np.int16)
    return HeldVolume(f"scan {seed}", hu, labels, (3.0, 1.8, 1.8))


def mask_task(**changes):
    plan = PatchPlan((4, 8, 8), batch=2, seed=1)
    given = {
        "build": lambda: VolumeUNet(UNET),
        "loss": mask_loss(MaskLossPlan((WHOLE_KIDNEY, MASS))),
        "source": Patches([scan(i) for i in range(3)], plan),
        "digest": "unet",
        "validate": dice,
        "monitor": "dice",
    }
    return VolumeTask(**{**given, **changes})


def crop_task(**changes):
    kinds = (TUMOUR, CYST, TUMOUR, TUMOUR)
    scans = [scan(i, kind) for i, kind in enumerate(kinds)]
    source = LesionCrops(scans, [0, 1, 0, 0], CropPlan((8, 12, 12), batch=4, seed=1))
    given = {
        "build": lambda: VolumeResNet(RESNET),
        "loss": class_loss((1.0, 2.0)),
        "source": source,
        "digest": "resnet",
    }
    return VolumeTask(**{**given, **changes})


def dice(net):
    """Of the mass in a volume nobody trains on; draws from torch's generator, as none should."""
    volume = scan(99)
    torch.rand(3)
    image = np.clip((volume.hu[None, None, :8, :16, :16].astype(np.float32) - 50) / 250, -1, 1)
    found = volume_scorer(net)(image)[0, 1] > 0
    truth = volume.labels[:8, :16, :16] >= TUMOUR
    return {"dice": 2 * (found & truth).sum() / (found.sum() + truth.sum()), "nothing": math.nan}


class Silent:
    def stage(self, words, total=None):
        pass

    def advance(self, steps=1, words=""):
        pass


class StopAfter(Silent):
    """Sends this process a signal after a number of steps."""

    def __init__(self, steps, number=signal.SIGINT):
        self.left, self.number = steps, number

    def advance(self, steps=1, words=""):
        self.left -= steps
        if self.left == 0 and steps:
            os.kill(os.getpid(), self.number)


def trained(folder, task=None, options=OPTIONS, progress=None):
    return train_volume(task or mask_task(), options, folder, progress or Silent())


def figures(history):
    rows = [{**row.as_dict(), "seconds": 0} for row in history.rows]
    return history.weights_sha256, history.best_step, rows


def test_leaves_weights_history_and_no_state(tmp_path):
    history = trained(tmp_path)
    names = ["history.csv", "history.json", "weights.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert [row.step for row in history.rows] == [2, 3, 4, 6, 7]
    assert [bool(row.figures) for row in history.rows] == [False, True, False, True, True]
    assert history.steps == 7
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0] == "step,lr,train_loss,seconds,dice,nothing"
    assert lines[1].startswith("2,0.00666666667,")
    assert lines[1].endswith(",,")
    assert len(lines) == 6
    net = load_volume_net(
        lambda: VolumeUNet(UNET), tmp_path / "weights.safetensors", history.weights_sha256
    )
    best = next(row for row in history.rows if row.step == history.best_step)
    assert dice(net)["dice"] == pytest.approx(best.figures["dice"])
    before = figures(history)
    assert figures(trained(tmp_path)) == before


def test_the_seed_decides_and_nothing_else_does(tmp_path):
    first = trained(tmp_path / "a")
    torch.manual_seed(77)
    assert figures(trained(tmp_path / "b")) == figures(first)
    other = trained(tmp_path / "c", options=replace(OPTIONS, seed=4))
    assert other.weights_sha256 != first.weights_sha256
    plain = trained(tmp_path / "d", mask_task(validate=None, monitor=""))
    last = trained(tmp_path / "e", options=replace(OPTIONS, validate_steps=0))
    assert plain.weights_sha256 == last.weights_sha256
    assert plain.best_step == last.best_step == 7


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        (mask_task, {}),
        (mask_task, {"optimizer": "sgd", "schedule": "poly", "channels_last": False}),
        (crop_task, {"validate_steps": 0, "schedule": "constant", "clip_norm": 0.0}),
        (mask_task, {"precision": "bf16"}),
    ],
    ids=["adamw", "sgd", "crops", "bf16"],
)
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, task, changes):
    options = replace(OPTIONS, **changes)
    whole = figures(trained(tmp_path / "whole", task(), options))
    for steps in (2, 3, 5):
        folder = tmp_path / f"stopped-{steps}"
        number = signal.SIGTERM if steps % 2 else signal.SIGINT
        with pytest.raises(KeyboardInterrupt, match="state is saved"):
            trained(folder, task(), options, StopAfter(steps, number))
        assert (folder / "state").is_dir()
        torch.manual_seed(steps)
        found = trained(folder, task(), options)
        assert figures(found) == whole
        assert found.notes == ()
        assert not (folder / "state").exists()


def test_stopped_after_every_step_is_still_bit_equal(tmp_path):
    whole = figures(trained(tmp_path / "whole", crop_task()))
    stops, found = 0, None
    while found is None:
        try:
            found = trained(tmp_path / "cut", crop_task(), progress=StopAfter(1))
        except KeyboardInterrupt:
            stops += 1
            assert stops < 20
    assert stops >= 6
    assert figures(found) == whole


def test_a_second_wish_during_validation_stops_at_once_and_loses_nothing(tmp_path):
    whole = figures(trained(tmp_path / "whole"))

    def impatient(net):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        return dice(net)

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", mask_task(validate=impatient))
    assert figures(trained(tmp_path / "cut")) == whole


def test_checkpoints_by_time_and_a_cut_one_falls_back(tmp_path):
    whole = figures(trained(tmp_path / "whole"))
    options = replace(OPTIONS, checkpoint_minutes=0.0)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", options=options, progress=StopAfter(5))
    states = sorted((tmp_path / "cut" / "state").glob("*.safetensors"))
    assert len(states) == 2
    states[-1].write_bytes(states[-1].read_bytes()[:-9])
    found = trained(tmp_path / "cut")
    assert figures(found) == whole
    assert len(found.notes) == 1
    assert "is used" in found.notes[0]


def test_it_learns_to_draw(tmp_path):
    net = VolumeUNetPlan((6, 8, 10), UNET.strides, n_outputs=2)
    plan = PatchPlan((8, 16, 16), batch=1, ranges=None)
    task = mask_task(
        build=lambda: VolumeUNet(net), source=Patches([scan(i) for i in range(3)], plan)
    )
    options = replace(OPTIONS, steps=60, lr=2e-2, validate_steps=20, log_steps=10)
    history = trained(tmp_path, task, options)
    assert history.rows[-1].loss < 0.5 * history.rows[0].loss
    assert max(row.figures["dice"] for row in history.rows if row.figures) > 0.7


def test_it_learns_to_name(tmp_path):
    options = replace(OPTIONS, steps=40, lr=3e-3, log_steps=10)
    history = trained(tmp_path, crop_task(), options)
    assert history.rows[-1].loss < 0.5 * history.rows[0].loss


def test_bfloat16_learns_alike_and_is_written_down(tmp_path):
    options = replace(OPTIONS, precision="bf16")
    plain, short = trained(tmp_path / "32"), trained(tmp_path / "bf16", options=options)
    assert (plain.precision, short.precision) == ("32", "bf16")
    assert short.weights_sha256 != plain.weights_sha256
    assert [r.loss for r in short.rows] == pytest.approx([r.loss for r in plain.rows], rel=0.02)
    assert json.loads((tmp_path / "bf16" / "history.json").read_text())["precision"] == "bf16"
    assert {v.dtype for v in load_volume_net(
        lambda: VolumeUNet(UNET), tmp_path / "bf16" / "weights.safetensors"
    ).parameters()} == {torch.float32}  # fmt: skip


@pytest.mark.parametrize("able", [True, False])
def test_auto_takes_bfloat16_where_the_processor_has_it(tmp_path, monkeypatch, able):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": able})
    options = replace(OPTIONS, precision="auto")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, options=options, progress=StopAfter(3))
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": True})
    found = trained(tmp_path, options=options)
    assert found.precision == "bf16"
    assert found.notes == (() if able else ("resumed with precision bf16 after 32",))


def test_the_largest_figure_is_kept_the_earliest_of_equals_and_nan_never(tmp_path):
    said = iter([math.nan, 0.5, 0.7, 0.7, 0.1])
    task = mask_task(validate=lambda net: {"dice": next(said)})
    history = trained(tmp_path, task, replace(OPTIONS, steps=5, validate_steps=1))
    assert history.best_step == 3
    rows = json.loads((tmp_path / "history.json").read_text())["rows"]
    assert rows[0]["figures"] == {"dice": None}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_names_the_batch(tmp_path, value):
    plain = mask_loss(MaskLossPlan((WHOLE_KIDNEY, MASS)))
    calls = []

    def failing(outputs, batch):
        calls.append(1)
        found = plain(outputs, batch)
        return found._replace(total=found.total * value) if len(calls) == 3 else found

    with pytest.raises(TrainingFailed, match=r"step 3 \(images scan \d, scan \d\)"):
        trained(tmp_path, mask_task(loss=failing))
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert failure["step"] == 3
    assert failure["images"]


def test_weights_that_became_nan_are_never_kept(tmp_path):
    class Poisoned(VolumeUNet):
        def forward(self, image, guide=None):
            found = super().forward(image, guide)
            if self.training:
                with torch.no_grad():
                    self.heads[-1].conv.conv.bias.fill_(math.nan)
            return found

    task = mask_task(build=lambda: Poisoned(UNET))
    for changes in ({"steps": 1}, {"steps": 1, "validate_steps": 0}, {"checkpoint_minutes": 0.0}):
        folder = tmp_path / "-".join(changes)
        with pytest.raises(TrainingFailed, match=r"(weight|loss) is .*(NaN|nan)"):
            trained(folder, task, replace(OPTIONS, **changes))
        assert not (folder / "weights.safetensors").exists()
        kept = load_checkpoint(folder / "state").checkpoint
        assert all(bool(torch.isfinite(v).all()) for v in (kept.tensors if kept else {}).values())


def test_other_settings_batches_or_damaged_weights_are_refused(tmp_path):
    trained(tmp_path / "done")
    for other in (
        {"options": replace(OPTIONS, lr=0.5)},
        {"task": mask_task(digest="another net")},
        {"task": mask_task(source=Patches([scan(5)], PatchPlan((4, 8, 8))))},
    ):
        with pytest.raises(StoreError, match="other settings"):
            trained(tmp_path / "done", **other)
    assert trained(tmp_path / "done", options=replace(OPTIONS, checkpoint_minutes=1.0))
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "begun", progress=StopAfter(2))
    with pytest.raises(StoreError, match="other settings"):
        trained(tmp_path / "begun", options=replace(OPTIONS, steps=8))
    weights = tmp_path / "done" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(StoreError, match="differ from their digest"):
        trained(tmp_path / "done")


def test_validation_and_its_figure_come_together(tmp_path):
    with pytest.raises(ValueError, match="figure to watch"):
        mask_task(monitor="")
    with pytest.raises(ValueError, match="figure to watch"):
        mask_task(validate=None)
    with pytest.raises(ValueError, match="not 'dice'"):
        trained(tmp_path, mask_task(validate=lambda net: {"loss": 1.0}))


def test_learning_rates():
    options = VolumeOptions(steps=12, lr=0.1, warmup_steps=2, schedule="poly")
    rates = [volume_rate(options, step) for step in range(12)]
    assert rates[:3] == pytest.approx([0.1 / 3, 0.2 / 3, 0.1])
    assert rates[7] == pytest.approx(0.1 * 0.5**0.9)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    cosine = replace(options, schedule="cosine")
    assert volume_rate(cosine, 7) == pytest.approx(0.05)
    assert volume_rate(cosine, 12) == pytest.approx(0)
    assert volume_rate(replace(options, schedule="constant"), 11) == 0.1


def test_wrong_options_list_every_problem():
    with pytest.raises(ConfigError) as wrong:
        VolumeOptions(steps=0, lr=0, momentum=1, threads=-1, clip_norm=math.nan)
    assert len(wrong.value.problems) == 5


def test_the_scorer_gives_logits_and_refuses_nonsense():
    net = VolumeUNet(UNET)
    image = np.random.default_rng(0).normal(size=(2, 1, 4, 8, 8)).astype(np.float32)
    with torch.no_grad():
        wanted = net.eval()(torch.from_numpy(image)).mask_logits[-1].numpy()
    net.train()
    score = volume_scorer(net)
    np.testing.assert_array_equal(score(image), wanted)
    assert net.training
    assert score(image).dtype == np.float32
    crops = volume_scorer(VolumeResNet(RESNET))(image)
    assert crops.shape == (2, 2)
    with pytest.raises(InputRefused):
        score(image * np.nan)


def test_the_scorer_refuses_results_that_are_not_finite():
    class Broken(VolumeUNet):
        def forward(self, image, guide=None):
            found = super().forward(image, guide)
            return Outputs(tuple(h * math.inf for h in found.mask_logits), None)

    with pytest.raises(ModelRefused, match="NaN or infinite"):
        volume_scorer(Broken(UNET))(np.ones((1, 1, 4, 8, 8), np.float32))
