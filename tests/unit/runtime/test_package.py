"""A package is refused unless every file and every result is what it was when it was made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from renalkit.errors import ModelRefused
from renalkit.runtime import package as packages
from renalkit.runtime.abilities import Precision, Processor
from renalkit.runtime.engines import EngineOptions, open_engine
from renalkit.runtime.known_patients import KnownPatients
from renalkit.runtime.package import (
    is_package,
    load_package,
    score,
    score_stream,
)
from renalkit.store.files import write_bytes, write_json
from renalkit.store.runs import write_manifest

from .small_models import CHANNELS, SIDE, expected, images, write

ONE = EngineOptions(threads=1)


def make(path: Path, *, fast: tuple[str, ...] = (), spoilt: float = 1.0) -> Path:
    """A package of two members. spoilt: the second network is another than its golden pair says."""
    golden: dict[str, np.ndarray] = {"input.image": images(3)}
    for fold, scale in ((0, 1.0), (2, spoilt)):
        folder = path / f"fold-{fold}"
        write(folder / "model.onnx", seed=fold, scale=scale)
        if "int8" in fast:
            write(folder / "model-int8.onnx", seed=fold, scale=scale)
        write_bytes(folder / "weights.safetensors", save({"w": np.zeros(1, np.float32)}))
        for name, value in expected(images(3), seed=fold).items():
            golden[f"fold-{fold}.{name}"] = value.astype(np.float32)
    write_bytes(path / "golden.safetensors", save(golden))
    known = KnownPatients.of("s", ["p-1"], ["p-2"]).plain
    earlier = KnownPatients.of("t", ["p-3"], []).plain
    members = {"fold-0": [known], "fold-2": [known, earlier]}
    write_json(path / "patients.json", {"members": members})
    write_json(path / "card.json", {"kind": "model card"})
    write_json(path / "spec.json", spec(fast))
    write_manifest(path)
    return path


def spec(fast: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "schema": 1,
        "kind": "renalkit model package",
        "name": "small",
        "version": "1",
        "notice": "research",
        "made_with": {"renalkit": "0.1.0"},
        "opset": 18,
        "job": {"system": "small", "train": {"tta": False}},
        "classes": ["benign", "malignant"],
        "positive": "malignant",
        "statistics": {},
        "thresholds": [{"fold": 0, "value": 0.4}],
        "ways": None,
        "inputs": {"image": [None, CHANNELS, SIDE, SIDE]},
        "outputs": ["mask_logits", "class_logits"],
        "members": [
            {"fold": fold, "folder": f"fold-{fold}", "weights_sha256": f"{fold}" * 64}
            for fold in (0, 2)
        ],
        "formats": ["onnx"],
        "fast": list(fast),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("packages") / "whole")


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_a_whole_package_computes_and_names_its_weights(whole: Path) -> None:
    assert is_package(whole)
    found = load_package(whole)
    assert found.weights_sha256 == ("0" * 64, "2" * 64)
    assert not found.spec.mirrored
    first, second = found.engines(ONE)
    given = images(2, seed=9)
    for engine, fold in ((first, 0), (second, 2)):
        wanted = expected(given, seed=fold)
        raw = score(engine, {"image": given})
        for name, value in wanted.items():
            np.testing.assert_allclose(raw[name], value, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fold-0/model.onnx", "fold-0/model.onnx changed"),
        ("fold-2/weights.safetensors", "fold-2/weights.safetensors changed"),
        ("spec.json", "spec.json changed"),
        ("golden.safetensors", "golden.safetensors changed"),
    ],
)
def test_a_changed_file_is_refused_by_name(copy: Path, name: str, words: str) -> None:
    path = copy / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ModelRefused, match=words):
        load_package(copy)


def test_missing_and_foreign_files_are_refused(copy: Path) -> None:
    (copy / "card.json").unlink()
    (copy / "run.py").write_text("print()")
    with pytest.raises(ModelRefused, match=r"card.json missing; run.py not listed"):
        load_package(copy)


def test_other_folders_are_no_package(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="not a model package"):
        load_package(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"kind": "another"},
        {"members": []},
        {"members": [{"fold": 0, "folder": "../x", "weights_sha256": "0" * 64}]},
        {"version": "../../x"},
        {"code": "os.system"},
    ],
)
def test_settings_of_another_kind_are_refused(copy: Path, change: dict[str, Any]) -> None:
    write_json(copy / "spec.json", spec() | change)
    write_manifest(copy)
    with pytest.raises(ModelRefused, match="settings that cannot be read"):
        load_package(copy)


def test_a_network_that_says_something_else_is_refused(tmp_path: Path) -> None:
    """Whole by its manifest, yet another network than the golden pair was made with."""
    found = load_package(make(tmp_path / "p", spoilt=1.01))
    with pytest.raises(ModelRefused, match="class_logits differs by") as error:
        found.engines(ONE)
    assert "fold-2" in error.value.where


def test_an_incomplete_golden_pair_is_refused(copy: Path) -> None:
    write_bytes(copy / "golden.safetensors", save({"input.image": images(1)}))
    write_manifest(copy)
    with pytest.raises(ModelRefused, match="incomplete golden pair"):
        load_package(copy).engines(ONE)
    (copy / "golden.safetensors").write_bytes(b"x")
    write_manifest(copy)
    with pytest.raises(ModelRefused, match="no readable golden pair"):
        load_package(copy).engines(ONE)


def test_fast_modes_the_package_was_not_made_with_are_refused(whole: Path) -> None:
    with pytest.raises(ModelRefused, match="mode bf16, which this package was not made with"):
        load_package(whole).engines(EngineOptions(precision=Precision.BF16))


def test_a_fast_mode_is_tested_once_on_each_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 8-bit files here are plain ones: what counts is when they are compared, and what stays."""
    able = Processor("a", frozenset({"avx512_vnni"}))
    monkeypatch.setattr(packages, "this_processor", lambda: able)
    monkeypatch.setattr("renalkit.runtime.engines.this_processor", lambda: able)
    found = load_package(make(tmp_path / "p", fast=("int8",)))
    options = EngineOptions("onnxruntime", Precision.INT8, 1, tmp_path / "cache")
    assert found.model_file(found.spec.members[0], options).name == "model-int8.onnx"
    calls: list[str] = []
    real = packages.compare

    def counted(wanted: Any, said: Any) -> Any:
        calls.append("compared")
        return real(wanted, said)

    monkeypatch.setattr(packages, "compare", counted)
    found.engines(options)
    assert len(calls) == 2
    (proof,) = (tmp_path / "cache").glob("proof-*.json")
    stored = json.loads(proof.read_text())
    assert stored["processor"] == "a"
    assert stored["mode"] == "int8"
    assert stored["engine"].startswith("onnxruntime ")
    assert all(m["score"] < 1e-4 for m in stored["members"])
    found.engines(options)
    assert len(calls) == 2, "known already"
    able = Processor("b", able.flags)
    found.engines(options)
    assert len(calls) == 4, "another processor"
    spoilt = load_package(make(tmp_path / "q", fast=("int8",), spoilt=3.0))
    with pytest.raises(ModelRefused, match="a class score moves"):
        spoilt.engines(options)
    assert len(list((tmp_path / "cache").glob("proof-*.json"))) == 2


def test_patients_it_has_seen_are_told_by_keyed_hash(whole: Path) -> None:
    found = load_package(whole)
    assert found.seen(["p-1", "p-2", "p-3", "p-4"]) == {"p-1", "p-2", "p-3"}
    first, last = (found.known(member) for member in found.spec.members)
    assert [k.among(["p-1", "p-2", "p-3"]) for k in first] == [({"p-1"}, {"p-2"})]
    assert [k.among(["p-1", "p-3"]) for k in last] == [({"p-1"}, set()), ({"p-3"}, set())]
    assert b"p-1" not in (whole / "patients.json").read_bytes()


def test_mirrored_results_are_the_mean_of_both(whole: Path) -> None:
    (engine, _) = load_package(whole).engines(ONE)
    batches = [images(2, seed=1), images(3, seed=2)]

    def given() -> Iterator[dict[str, np.ndarray]]:
        yield from ({"image": b} for b in batches)

    found = list(score_stream(engine, given(), mirrored=True))
    assert len(found) == 2
    for batch, raw in zip(batches, found, strict=True):
        one, other = expected(batch), expected(batch[..., ::-1])
        masks = (one["mask_logits"] + other["mask_logits"][..., ::-1]) / 2
        np.testing.assert_allclose(raw["mask_logits"], masks, atol=1e-5)
        scores = (one["class_logits"] + other["class_logits"]) / 2
        np.testing.assert_allclose(raw["class_logits"], scores, atol=1e-5)


def test_the_engine_of_a_package_reads_openvinos_own_file_where_there_is_one(
    copy: Path,
) -> None:
    from renalkit.runtime.engines import write_openvino

    for fold in (0, 2):
        write_openvino(copy / f"fold-{fold}" / "model.onnx", copy / f"fold-{fold}" / "model.xml")
    write_json(copy / "spec.json", spec() | {"formats": ["onnx", "openvino"]})
    write_manifest(copy)
    found = load_package(copy)
    member = found.spec.members[0]
    assert found.model_file(member, ONE).name == "model.xml"
    assert found.model_file(member, EngineOptions("onnxruntime")).name == "model.onnx"
    first, _ = found.engines(ONE)
    plain = open_engine(copy / "fold-0" / "model.onnx", ONE)
    given = {"image": images(2)}
    np.testing.assert_allclose(
        first.run(given)["mask_logits"], plain.run(given)["mask_logits"], atol=1e-6
    )
