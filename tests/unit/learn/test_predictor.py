"""Prediction is independent of batches; weights that cannot be trusted are refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from renalkit.domain.image import Mode
from renalkit.domain.sample import SampleKey
from renalkit.errors import ModelRefused
from renalkit.learn.outputs import Guide, Net, Outputs
from renalkit.learn.predictor import (
    load_trained,
    load_weights,
    predict_arrays,
    predict_batches,
    resolve_device,
    save_weights,
    time_per_image,
)
from renalkit.learn.prepared import PreparedSet
from renalkit.systems import get_system
from renalkit.systems._contract import Shape, Task
from renalkit.transforms.preprocess import Placement


class Small(Net):
    def __init__(self, heads: int = 2, attention: bool = True, shared: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.heads = nn.ModuleList([nn.Conv2d(4, 1, 1) for _ in range(heads)])
        self.label = nn.Linear(4, 3)
        self.second_name = self.label if shared else None
        self.attention = attention

    def forward(self, image: Tensor, guide: Guide | None = None) -> Outputs:
        found = self.stem(image)
        masks = tuple(head(found) for head in self.heads) or None
        shown = torch.sigmoid(found[:, :1]) if self.attention else None
        return Outputs(masks, self.label(found.mean((2, 3))), shown)


@dataclass(frozen=True)
class Size:
    channels: int = 1
    size: int = 16


@pytest.fixture(autouse=True)
def _settled():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


IMAGES = np.random.default_rng(0).integers(0, 256, (7, 1, 16, 16)).astype(np.uint8)


def test_shapes_and_types() -> None:
    raw = predict_arrays(Small(), IMAGES, 3, "cpu")
    assert {k: (v.shape, v.dtype) for k, v in raw.items()} == {
        "mask_logits": ((7, 2, 16, 16), np.float32),
        "class_logits": ((7, 3), np.float32),
        "attention": ((7, 1, 16, 16), np.float32),
    }
    assert set(predict_arrays(Small(0, attention=False), IMAGES)) == {"class_logits"}


def test_batches_are_small_and_in_order() -> None:
    net = Small()
    parts = list(predict_batches(net, IMAGES, 3))
    assert [len(part["class_logits"]) for part in parts] == [3, 3, 1]
    whole = predict_arrays(net, IMAGES, 7)
    joined = np.concatenate([part["class_logits"] for part in parts])
    np.testing.assert_allclose(joined, whole["class_logits"], atol=1e-6)
    back = predict_arrays(net, np.ascontiguousarray(IMAGES[::-1]), 2)
    np.testing.assert_allclose(back["mask_logits"][::-1], whole["mask_logits"], atol=1e-6)


def test_evaluation_mode_is_used_and_the_mode_before_returns() -> None:
    net = Small().train()
    first = predict_arrays(net, IMAGES)
    assert net.training
    assert np.array_equal(first["class_logits"], predict_arrays(net, IMAGES)["class_logits"])
    assert all(p.grad is None for p in net.parameters())


def test_bytes_are_scaled_and_floats_taken_as_they_are() -> None:
    net = Small()
    unit = IMAGES.astype(np.float32) * np.float32(1 / 255)
    a, b = predict_arrays(net, IMAGES), predict_arrays(net, unit)
    assert np.array_equal(a["mask_logits"], b["mask_logits"])


def test_a_prepared_set_brings_its_grey_levels() -> None:
    levels = np.tile(np.array([0.25, 0.5], np.float32), (7, 1, 1))
    data = PreparedSet(
        images=IMAGES,
        masks=np.zeros_like(IMAGES),
        has_mask=np.ones(7, bool),
        labels=np.zeros(7, np.int64),
        levels=levels,
        placements=(Placement.fit((16, 16), 16),) * 7,
        keys=tuple(SampleKey(f"p{i}", "s", "", 0, 0) for i in range(7)),
        present=np.ones((7, 1), bool),
        features=np.zeros((7, 0), np.float32),
    )
    net = Small()
    shifted = (IMAGES.astype(np.float32) * np.float32(1 / 255) - 0.25) / 0.5
    a, b = predict_arrays(net, data, 3), predict_arrays(net, shifted.astype(np.float32), 3)
    np.testing.assert_allclose(a["class_logits"], b["class_logits"], atol=1e-6)


def test_tta_does_not_see_which_way_an_image_is_turned() -> None:
    net = Small()
    straight = predict_arrays(net, IMAGES, tta=True)
    mirrored = predict_arrays(net, np.ascontiguousarray(IMAGES[..., ::-1]), tta=True)
    np.testing.assert_allclose(straight["class_logits"], mirrored["class_logits"], atol=1e-6)
    np.testing.assert_allclose(
        straight["mask_logits"], mirrored["mask_logits"][..., ::-1], atol=1e-6
    )


def test_no_images_or_no_device_is_refused() -> None:
    with pytest.raises(ValueError, match="no images"):
        predict_arrays(Small(), IMAGES[:0])
    if not torch.cuda.is_available():
        with pytest.raises(ModelRefused, match="no CUDA device"):
            resolve_device("cuda")
        assert resolve_device("auto").type == "cpu"


def test_s06_a_nan_result_is_refused() -> None:
    net = Small()
    with torch.no_grad():
        net.label.weight.fill_(math.nan)
    with pytest.raises(ModelRefused, match="class_logits holds NaN"):
        predict_arrays(net, IMAGES)


@pytest.mark.parametrize("shared", [False, True])
def test_saved_weights_give_the_same_results(tmp_path: Path, shared: bool) -> None:
    net = Small(shared=shared)
    digest = save_weights(net, tmp_path / "w.safetensors")
    other = Small(shared=shared)
    load_weights(other, tmp_path / "w.safetensors", digest)
    a, b = predict_arrays(net, IMAGES), predict_arrays(other, IMAGES)
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert save_weights(other, tmp_path / "again.safetensors") == digest


def test_memory_format_is_not_part_of_the_file(tmp_path: Path) -> None:
    net = Small()
    digest = save_weights(net, tmp_path / "a.safetensors")
    net.to(memory_format=torch.channels_last)
    assert save_weights(net, tmp_path / "b.safetensors") == digest


def _damaged(path: Path, kind: str) -> None:
    state = {k: v.clone() for k, v in Small().state_dict().items()}
    if kind == "missing":
        del state["label.bias"]
    elif kind == "unexpected":
        state["extra"] = torch.zeros(1)
    elif kind == "shape":
        state["label.bias"] = torch.zeros(4)
    elif kind == "type":
        state["label.bias"] = torch.zeros(3, dtype=torch.float64)
    elif kind == "nan":
        state["stem.1.running_var"][0] = math.nan
    elif kind == "infinite":
        state["label.bias"][0] = math.inf
    save_file(state, path)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    elif kind == "pickle":
        path.write_bytes(b"\x80\x04cos\nsystem\n(S'false'\ntR.")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "gone":
        path.unlink()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "missing label.bias"),
        ("unexpected", "unexpected extra"),
        ("shape", r"label.bias is torch.float32 \(4,\), not torch.float32 \(3,\)"),
        ("type", "label.bias is torch.float64"),
        ("nan", "stem.1.running_var holds NaN"),
        ("infinite", "label.bias holds NaN or infinite"),
        ("cut", "not a safetensors file"),
        ("pickle", "not a safetensors file"),
        ("empty", "not a safetensors file"),
        ("gone", "cannot be read"),
    ],
)
def test_m_weights_that_do_not_fit_are_refused_and_change_nothing(
    tmp_path: Path, kind: str, words: str
) -> None:
    path = tmp_path / "w.safetensors"
    _damaged(path, kind)
    net = Small()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ModelRefused, match=words):
        load_weights(net, path)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_another_digest_is_refused(tmp_path: Path) -> None:
    net = Small()
    digest = save_weights(net, tmp_path / "w.safetensors")
    wrong = ("0" if digest[0] != "0" else "1") + digest[1:]
    with pytest.raises(ModelRefused, match="weights with digest"):
        load_weights(net, tmp_path / "w.safetensors", wrong)


def test_nan_weights_are_not_saved(tmp_path: Path) -> None:
    net = Small()
    with torch.no_grad():
        net.label.weight[0, 0] = math.nan
    with pytest.raises(ModelRefused, match="label.weight"):
        save_weights(net, tmp_path / "w.safetensors")
    assert not (tmp_path / "w.safetensors").exists()


def test_time_per_image_is_positive_and_moves_no_generator() -> None:
    net = Small().train()
    state = torch.get_rng_state()
    assert time_per_image(net, Size(), batch=2, repeats=2) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training


def test_a_set_of_unequal_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="labels has 1 entries for 7 images"):
        PreparedSet(
            images=IMAGES,
            masks=IMAGES,
            has_mask=np.ones(7, bool),
            labels=np.zeros(1, np.int64),
            levels=np.zeros((7, 1, 2), np.float32),
            placements=(Placement.fit((16, 16), 16),) * 7,
            keys=tuple(SampleKey(f"p{i}", "s", "", 0, 0) for i in range(7)),
            present=np.ones((7, 1), bool),
            features=np.zeros((7, 0), np.float32),
        )


def test_repvgg_is_scored_with_its_branches_merged(tmp_path: Path) -> None:
    system = get_system("repvgg-ceus")
    shape = Shape(3, 64, 2, (Mode.CEUS,))
    torch.manual_seed(0)
    net = system.build(system.params(), shape, Task.CLASSIFICATION).train()
    net(torch.rand(4, 3, 64, 64))  # so that running statistics differ from their start
    sha256 = save_weights(net, tmp_path / "w.safetensors")
    loaded = system.build(system.params(), shape, Task.CLASSIFICATION)
    load_trained(loaded, tmp_path / "w.safetensors", sha256)
    assert loaded.deployed
    assert not loaded.training
    images = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    branches, merged = (predict_arrays(n, images)["class_logits"] for n in (net, loaded))
    np.testing.assert_allclose(merged, branches, atol=1e-4)
