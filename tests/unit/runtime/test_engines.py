"""Both engines give the sums of float64 in any batch, in order, and refuse what does not fit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from renalkit.errors import InputRefused, MissingExtra, ModelRefused, Reason
from renalkit.runtime import engines
from renalkit.runtime.abilities import NEEDED, Precision, Processor, this_processor
from renalkit.runtime.engines import BACKENDS, EngineOptions, installed, open_engine

from .small_models import CHANNELS, SIDE, expected, images, write


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("small") / "model.onnx")


@pytest.fixture(scope="module", params=BACKENDS)
def engine(request: pytest.FixtureRequest, model: Path) -> engines.Engine:
    return open_engine(model, EngineOptions(backend=request.param, threads=1))


def test_both_engines_are_installed_where_tests_run() -> None:
    assert installed() == ("openvino", "onnxruntime")


def test_names_and_results_in_any_batch(engine: engines.Engine) -> None:
    assert engine.inputs == ("image",)
    assert set(engine.outputs) == {"mask_logits", "class_logits"}
    assert engine.name.split()[0] in BACKENDS
    for n in (1, 5, 2):
        given = images(n, seed=n)
        found = engine.run({"image": given})
        for name, value in expected(given).items():
            assert found[name].dtype == np.float32
            np.testing.assert_allclose(found[name], value, atol=1e-5)


def test_streams_keep_the_order_and_hold_few_batches(engine: engines.Engine) -> None:
    begun: list[int] = []

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for i in range(7):
            begun.append(i)
            yield {"image": images(1 + i % 3, seed=i)}

    for i, found in enumerate(engine.stream(batches())):
        assert len(begun) <= i + 1 + engines.IN_FLIGHT
        wanted = expected(images(1 + i % 3, seed=i))
        np.testing.assert_allclose(found["mask_logits"], wanted["mask_logits"], atol=1e-5)
    assert begun == list(range(7))


def test_a_stream_ends_with_the_error_of_its_batches_and_the_engine_works_on(
    engine: engines.Engine,
) -> None:
    def batches() -> Iterator[dict[str, np.ndarray]]:
        yield {"image": images(1)}
        yield {"image": images(2)}
        raise InputRefused(Reason.TRUNCATED, "the file ends early")

    with pytest.raises(InputRefused, match="ends early"):
        list(engine.stream(batches()))
    for _ in engine.stream({"image": images(1)} for _ in range(9)):
        break
    assert engine.run({"image": images(1)})["class_logits"].shape == (1, 2)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "inputs none"),
        ({"picture": images(1)}, "inputs picture"),
        ({"image": images(0)}, "inputs for"),
        ({"image": images(1)[:, :1]}, r"image of float32 \(1, 1, 8, 8\)"),
        ({"image": images(1).astype(np.float64)}, "image of float64"),
        ({"image": np.full((1, CHANNELS, SIDE, SIDE), np.nan, np.float32)}, "NaN or infinite"),
    ],
)
def test_what_does_not_fit_is_refused(engine: engines.Engine, given: dict, words: str) -> None:
    with pytest.raises(InputRefused, match=words):
        engine.run(given)


def test_results_that_are_not_finite_are_refused(engine: engines.Engine) -> None:
    huge = np.full((1, CHANNELS, SIDE, SIDE), 3e38, np.float32)
    with pytest.raises(ModelRefused, match="NaN or infinite"):
        engine.run({"image": huge})


@pytest.mark.parametrize("backend", BACKENDS)
def test_files_that_are_no_model_are_refused(backend: engines.Backend, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    options = EngineOptions(backend=backend)
    with pytest.raises(ModelRefused, match="not a model this engine can read"):
        open_engine(tmp_path / "model.onnx", options)
    with pytest.raises(ModelRefused, match="no such model file"):
        open_engine(tmp_path / "other.onnx", options)


def test_compiled_networks_are_kept(model: Path, tmp_path: Path) -> None:
    options = EngineOptions(backend="openvino", threads=1, cache=tmp_path / "compiled")
    first = open_engine(model, options).run({"image": images(2)})
    assert list((tmp_path / "compiled").rglob("*.blob"))
    again = open_engine(model, options).run({"image": images(2)})
    np.testing.assert_array_equal(first["mask_logits"], again["mask_logits"])


SIGNALLED = """
import gc, os, signal, sys
from pathlib import Path
import numpy as np
from renalkit.runtime.engines import EngineOptions, open_engine, write_openvino

model = Path(sys.argv[1])
signal.signal(signal.SIGINT, lambda *_: print("heard"))
one = open_engine(model, EngineOptions("openvino", threads=1))
two = open_engine(model, EngineOptions("openvino", threads=1))
del one
write_openvino(model, Path(sys.argv[2]))
del two
gc.collect()
os.kill(os.getpid(), signal.SIGINT)
print("alive")
"""


def test_a_signal_after_engines_went_is_heard(model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SIGNALLED, str(model), str(tmp_path / "model.xml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert done.stdout.split() == ["heard", "alive"]


def test_fast_modes_need_their_instructions() -> None:
    old = Processor("old", frozenset({"avx2", "fma"}))
    assert old.can(Precision.FP32)
    for mode in (Precision.BF16, Precision.INT8):
        with pytest.raises(ModelRefused, match=f"{mode.value} on a processor") as error:
            old.require(mode)
        assert NEEDED[mode][0] in error.value.expected
        for flag in NEEDED[mode]:
            Processor("new", frozenset({flag})).require(mode)
    assert this_processor().model


@pytest.mark.parametrize("mode", [Precision.BF16, Precision.INT8])
def test_modes_of_other_processors_are_refused_here(
    mode: Precision, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "this_processor", lambda: Processor("old", frozenset()))
    with pytest.raises(ModelRefused, match="without its instructions"):
        open_engine(model, EngineOptions(precision=mode))


def test_a_missing_engine_names_the_extra(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "installed", lambda: ())
    with pytest.raises(MissingExtra, match="openvino or onnxruntime") as error:
        open_engine(model)
    assert "extra 'runtime'" in error.value.remedy
    monkeypatch.setattr(engines, "installed", lambda: ("onnxruntime",))
    with pytest.raises(MissingExtra, match="openvino is not installed"):
        open_engine(model, EngineOptions(backend="openvino"))


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="threads -1"):
        EngineOptions(threads=-1)
    with pytest.raises(ValueError, match="in_flight 0"):
        EngineOptions(in_flight=0)
    assert EngineOptions(threads=3).cores == 3
    assert EngineOptions().cores >= 1
