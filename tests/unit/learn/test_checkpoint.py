"""Checkpoints: whole or not used, two generations, every kind of damage noticed."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from renalkit.errors import StoreError
from renalkit.learn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from renalkit.store.files import sha256_bytes


def _state(mark: int) -> Checkpoint:
    tensors = {
        "model/weight": torch.full((3, 4), float(mark)),
        "model/steps": torch.tensor(mark),
        "rng/cpu": torch.arange(50, dtype=torch.uint8),
        "half": torch.ones(3, dtype=torch.bfloat16),
    }
    return Checkpoint(tensors, {"epoch": mark, "rows": [{"loss": 0.1, "iou": None}]})


def _mark(folder: Path) -> int | None:
    found = load_checkpoint(folder).checkpoint
    return None if found is None else int(found.values["epoch"])


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, _state(5))
    found = load_checkpoint(tmp_path)
    assert found.number == 1
    assert found.notes == ()
    assert found.checkpoint is not None
    assert found.checkpoint.values == _state(5).values
    for name, tensor in _state(5).tensors.items():
        assert found.checkpoint.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.checkpoint.tensors[name], tensor)


def test_two_generations_are_kept(tmp_path: Path) -> None:
    for n in range(1, 6):
        save_checkpoint(tmp_path, n, _state(n))
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [f"0000000{n}.{kind}" for n in (4, 5) for kind in ("json", "safetensors")]
    assert _mark(tmp_path) == 5


def test_nothing_there_is_no_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        found = load_checkpoint(folder)
        assert (found.checkpoint, found.number, found.notes) == (None, 0, ())


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_m09_cut_at_every_percent_falls_back_and_names_both(tmp_path: Path, suffix: str) -> None:
    for n in (1, 2):
        save_checkpoint(tmp_path, n, _state(n))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    whole = before[f"00000002{suffix}"]
    for percent in range(100):
        for name, data in before.items():
            (tmp_path / name).write_bytes(data)
        (tmp_path / f"00000002{suffix}").write_bytes(whole[: len(whole) * percent // 100])
        found = load_checkpoint(tmp_path)
        assert found.checkpoint is not None
        assert found.checkpoint.values["epoch"] == 1
        assert found.number == 1
        assert len(found.notes) == 1
        assert "00000002 is damaged" in found.notes[0]
        assert "00000001 is used" in found.notes[0]
        assert not (tmp_path / "00000002.json").exists()


@settings(max_examples=60, deadline=None)
@given(
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
    suffix=st.sampled_from([".safetensors", ".json"]),
)
def test_x10_a_flipped_bit_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int, suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    for n in (1, 2):
        save_checkpoint(folder, n, _state(n))
    path = folder / f"00000002{suffix}"
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(bytes(data))
    found = load_checkpoint(folder)
    assert found.checkpoint is not None
    if found.checkpoint.values["epoch"] == 2:
        # Only white space of the JSON text can change without changing what it says.
        assert suffix == ".json"
        assert found.checkpoint.values == _state(2).values
        assert torch.equal(found.checkpoint.tensors["model/weight"], torch.full((3, 4), 2.0))
    else:
        assert "00000001 is used" in found.notes[0]


def test_zero_filled_tail_is_noticed(tmp_path: Path) -> None:
    for n in (1, 2):
        save_checkpoint(tmp_path, n, _state(n))
    path = tmp_path / "00000002.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-8] + bytes(8))
    assert _mark(tmp_path) == 1


def test_two_damaged_generations_begin_again_and_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for n in (1, 2):
        save_checkpoint(tmp_path, n, _state(n))
        (tmp_path / f"0000000{n}.safetensors").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        found = load_checkpoint(tmp_path)
    assert found.checkpoint is None
    assert len(found.notes) == 2
    assert all("training starts again" in words for words in found.notes)
    assert "00000001 is damaged" in caplog.text


def test_a_write_that_did_not_end_never_counted(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, _state(1))
    (tmp_path / "00000002.safetensors").write_bytes(b"half")
    (tmp_path / ".tmp-abc.safetensors").write_bytes(b"half")
    found = load_checkpoint(tmp_path)
    assert found.number == 1
    assert found.notes == ()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000001.json", "00000001.safetensors"]


def test_m08_a_newer_format_is_refused_and_kept(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, _state(1))
    path = tmp_path / "00000001.json"
    body = json.loads(path.read_text())["body"]
    body["schema"] = 99
    digest = sha256_bytes(json.dumps(body, sort_keys=True, allow_nan=False).encode())
    path.write_text(json.dumps({"body": body, "body_sha256": digest}))
    with pytest.raises(StoreError, match="format 99"):
        load_checkpoint(tmp_path)
    assert path.exists()


def test_pickles_are_not_looked_at(tmp_path: Path) -> None:
    for n in (1, 2):
        save_checkpoint(tmp_path, n, _state(n))
    # The start of a pickle that would run a command, where tensors should be.
    (tmp_path / "00000002.safetensors").write_bytes(b"\x80\x04cos\nsystem\n(S'false'\ntR.")
    assert _mark(tmp_path) == 1


def test_values_that_are_not_json_are_refused_before_anything_is_lost(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, _state(1))
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path, 2, Checkpoint(_state(2).tensors, {"loss": float("nan")}))
    assert _mark(tmp_path) == 1


def test_tensor_file_of_another_generation_is_refused(tmp_path: Path) -> None:
    for n in (1, 2):
        save_checkpoint(tmp_path, n, _state(n))
    (tmp_path / "00000002.safetensors").write_bytes(save(dict(_state(3).tensors)))
    assert _mark(tmp_path) == 1
