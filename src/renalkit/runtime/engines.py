"""Who computes an exported network? One small interface over OpenVINO and ONNX Runtime.

A model is an ONNX file, or OpenVINO's own (.xml with its .bin). Inputs and results go by name:
'image' (b,c,s,s) float32, 'features' (b,f) float32 where the network takes numbers beside the
picture; 'class_logits' (b,k), 'mask_logits' (b,h,s,s), 'branch_logits' (b,m,k) and
'modality_weights' (b,m) as far as the network gives them. The batch may have any length.

Shape legend: b images, c channels, s side in pixels, f numbers, k classes, h heads, m modalities.
Networks on volumes have 'image' (b,c,z,y,x) and 'mask_logits' (b,k,z,y,x).
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from renalkit.errors import InputRefused, MissingExtra, ModelRefused, Reason
from renalkit.runtime.abilities import Precision, this_processor
from renalkit.store.files import make_folder, write_bytes

Arrays = Mapping[str, npt.NDArray[Any]]
Found = dict[str, npt.NDArray[np.float32]]
Backend = Literal["openvino", "onnxruntime"]

BACKENDS: tuple[Backend, ...] = ("openvino", "onnxruntime")
"""In the order they are preferred."""
NAMES = (
    *("image", "features"),
    *("mask_logits", "class_logits", "branch_logits", "modality_weights"),
)
"""Of inputs and results."""
IN_FLIGHT = 2
"""Batches computed at once by default: one is computed while the next is made."""
REMEDY = "install renalkit with the extra 'runtime'"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to compute.

    backend: None takes the first that is installed. precision: never left to the engine, whose own
    choice may be a faster, rougher one. threads: 0 takes the cores this process may use. cache:
    folder where OpenVINO keeps compiled networks; None keeps none. in_flight: batches that
    `Engine.stream` computes at once.
    """

    backend: Backend | None = None
    precision: Precision = Precision.FP32
    threads: int = 0
    cache: Path | None = None
    in_flight: int = IN_FLIGHT

    def __post_init__(self) -> None:
        if self.threads < 0 or self.in_flight < 1:
            raise ValueError(f"threads {self.threads}, in_flight {self.in_flight}")

    @property
    def cores(self) -> int:
        """Threads that are really used."""
        return self.threads or len(os.sched_getaffinity(0))


class Engine(Protocol):
    """A network ready to compute.

    name: which engine and version. inputs, outputs: their names in order.
    """

    @property
    def name(self) -> str: ...

    @property
    def inputs(self) -> tuple[str, ...]: ...

    @property
    def outputs(self) -> tuple[str, ...]: ...

    def run(self, given: Arrays) -> Found:
        """Results of one batch.

        Raises:
            InputRefused: missing or unknown names, another shape or type, or NaN in the image.
            ModelRefused: a result is NaN or infinite.
        """
        ...

    def stream(self, batches: Iterable[Arrays]) -> Iterator[Found]:
        """Results of many batches in their order; the next batch is made while one is computed.

        At most `in_flight` batches are held at once. Raises as `run`.
        """
        ...


def installed() -> tuple[Backend, ...]:
    """The engines there are, preferred first."""
    return tuple(name for name in BACKENDS if find_spec(name) is not None)


def engine_version(backend: Backend) -> str:
    """Name and version of an engine, as stored with what it computed."""
    try:
        return f"{backend} {version(backend)}"
    except PackageNotFoundError:
        return backend


def open_engine(model: Path, options: EngineOptions | None = None) -> Engine:
    """Make a network ready to compute.

    Raises:
        MissingExtra: no engine, or not the one asked for, is installed.
        ModelRefused: the file cannot be read, or this processor lacks the instructions.
    """
    chosen = options or EngineOptions()
    there = installed()
    if not there or (chosen.backend is not None and chosen.backend not in there):
        what = chosen.backend or " or ".join(BACKENDS)
        raise MissingExtra(f"{what} is not installed", remedy=REMEDY)
    this_processor().require(chosen.precision)
    backend = chosen.backend or there[0]
    if not model.is_file():
        raise ModelRefused(
            "no such model file", where=model.name, remedy="export the model in this format"
        )
    return _OpenVINO(model, chosen) if backend == "openvino" else _OnnxRuntime(model, chosen)


# ---- what both engines share ------------------------------------------------------------------

Pending = Callable[[], Found]
"""Waits for the results of a batch that is being computed."""


@dataclass(frozen=True, slots=True)
class _Port:
    """An input: name and length along each axis, None where any."""

    name: str
    shape: tuple[int | None, ...]


class _Base:
    """Checks what goes in and comes out, and keeps results in order."""

    def __init__(self, backend: Backend, ports: tuple[_Port, ...], outputs: tuple[str, ...]):
        self._name = engine_version(backend)
        self._ports = ports
        self._outputs = outputs

    @property
    def name(self) -> str:
        return self._name

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(port.name for port in self._ports)

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._outputs

    def _checked(self, given: Arrays) -> list[npt.NDArray[np.float32]]:
        """The inputs in order, contiguous."""
        if set(given) != set(self.inputs):
            raise InputRefused(
                Reason.DIMS_MISMATCH,
                f"inputs {', '.join(sorted(given)) or 'none'}",
                where="network input",
                expected=", ".join(self.inputs),
            )
        lengths = {len(given[port.name]) for port in self._ports}
        if len(lengths) != 1 or 0 in lengths:
            raise InputRefused(
                Reason.DIMS_MISMATCH,
                f"inputs for {sorted(lengths)} images",
                where="network input",
                expected="as many of each, and at least one",
            )
        return [_fitting(port, given[port.name]) for port in self._ports]

    def _finite(self, found: Found) -> Found:
        for name, value in found.items():
            if not np.isfinite(value).all():
                raise ModelRefused(
                    f"{name} holds NaN or infinite values",
                    where=self._name,
                    expected="finite results",
                    remedy="use fp32, or other weights; nothing was decided from this",
                )
        return found


def _fitting(port: _Port, value: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    fits = value.ndim == len(port.shape) and all(
        wanted in (None, there) for wanted, there in zip(port.shape, value.shape, strict=True)
    )
    if not fits or value.dtype != np.float32:
        lengths = ("any" if n is None else str(n) for n in port.shape[1:])
        asked = ", ".join(["images", *lengths])
        raise InputRefused(
            Reason.DIMS_MISMATCH,
            f"{port.name} of {value.dtype} {value.shape}",
            where="network input",
            expected=f"float32 ({asked})",
            remedy="prepare pictures with the settings the network was trained with",
        )
    # Numbers beside the picture are NaN where unknown; a picture has no unknown pixel.
    if port.name == "image" and not np.isfinite(value).all():
        raise InputRefused(
            Reason.NON_FINITE,
            "image batch holds NaN or infinite values",
            where="network input",
            expected="finite pixel values",
        )
    return np.ascontiguousarray(value)


def _in_order(
    start: Callable[[Arrays], Pending], batches: Iterable[Arrays], most: int
) -> Iterator[Found]:
    """Results in the order of the batches; when it ends early, what was begun is waited for."""
    waiting: deque[Pending] = deque()
    try:
        for batch in batches:
            if len(waiting) == most:
                yield waiting.popleft()()
            waiting.append(start(batch))
        while waiting:
            yield waiting.popleft()()
    finally:
        for pending in waiting:
            with suppress(ModelRefused):  # what ended it early is told, not what came of the rest
                pending()


# ---- OpenVINO ---------------------------------------------------------------------------------


@functools.cache
def _core() -> Any:
    """The one Core of this process, with its CPU plugin loaded.

    The plugin gives the calling thread a stack for signal handlers, and takes it back when its
    Core goes. Of two Cores that go in the order they came, the second puts back the stack that
    went with the first: the next signal, a Ctrl-C say, then ends the process with SIGSEGV.
    """
    import openvino as ov  # an engine loads only when it is asked for

    core = ov.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")
    return core


class _OpenVINO(_Base):
    """Each batch in flight has an inference request of its own."""

    def __init__(self, model: Path, options: EngineOptions) -> None:
        import openvino as ov  # an engine loads only when it is asked for

        hint = {
            Precision.FP32: ov.Type.f32,
            Precision.BF16: ov.Type.bf16,
            # What is not quantised in the file stays in 32 bits.
            Precision.INT8: ov.Type.f32,
        }[options.precision]
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": hint,
            "EXECUTION_MODE_HINT": "ACCURACY"
            if options.precision is Precision.FP32
            else "PERFORMANCE",
            "INFERENCE_NUM_THREADS": options.cores,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        if options.cache is not None:
            settings["CACHE_DIR"] = str(make_folder(options.cache))
        core = _core()
        try:
            network = core.read_model(model)
            self._compiled = core.compile_model(network, "CPU", settings)
        except RuntimeError as error:
            raise _unreadable(model, error) from error
        ports = tuple(
            _Port(
                _known_name(port.get_names()),
                tuple(None if n.is_dynamic else n.get_length() for n in port.get_partial_shape()),
            )
            for port in self._compiled.inputs
        )
        names = tuple(_known_name(port.get_names()) for port in self._compiled.outputs)
        super().__init__("openvino", ports, names)
        self._in_flight = options.in_flight
        self._own = self._compiled.create_infer_request()

    def _start(self, request: Any, given: Arrays) -> Pending:
        arrays = self._checked(given)
        request.start_async(dict(enumerate(arrays)), share_inputs=True)

        def wait() -> Found:
            request.wait()
            # The request is used again: results are copied out of its memory. The arrays live
            # until here, since the request only borrows them.
            assert len(arrays) == len(self._ports)
            return self._finite(
                {
                    name: np.array(request.get_output_tensor(i).data, np.float32)
                    for i, name in enumerate(self._outputs)
                }
            )

        return wait

    def run(self, given: Arrays) -> Found:
        return self._start(self._own, given)()

    def stream(self, batches: Iterable[Arrays]) -> Iterator[Found]:
        requests = cycle([self._compiled.create_infer_request() for _ in range(self._in_flight)])
        return _in_order(lambda given: self._start(next(requests), given), batches, self._in_flight)


def write_openvino(model: Path, target: Path) -> None:
    """An ONNX model as OpenVINO's own: TARGET.xml and, beside it, TARGET.bin; 32 bits are kept.

    Raises:
        MissingExtra: OpenVINO is not installed.
        ModelRefused: the ONNX file cannot be read.
        StoreError: the disk refused.
    """
    if "openvino" not in installed():
        raise MissingExtra("openvino is not installed", remedy=REMEDY)
    import openvino as ov  # an engine loads only when it is asked for

    try:
        network = _core().read_model(model)
    except RuntimeError as error:
        raise _unreadable(model, error) from error
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / target.name
        ov.save_model(network, str(made), compress_to_fp16=False)
        for suffix in (".bin", ".xml"):
            write_bytes(target.with_suffix(suffix), made.with_suffix(suffix).read_bytes())


def _known_name(names: set[str]) -> str:
    """OpenVINO gives a port the names of what it merged into it as well."""
    return next((name for name in NAMES if name in names), min(names, default=""))


# ---- ONNX Runtime -----------------------------------------------------------------------------


class _OnnxRuntime(_Base):
    """One session; a thread per batch in flight waits for it."""

    def __init__(self, model: Path, options: EngineOptions) -> None:
        import onnxruntime as ort  # an engine loads only when it is asked for

        if options.precision is Precision.BF16:
            raise ModelRefused(
                "mode bf16 in ONNX Runtime",
                where="precision",
                expected="fp32 or int8",
                remedy="install openvino, which has it",
            )
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = options.cores
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                str(model), settings, providers=["CPUExecutionProvider"]
            )
        except _ort_errors() as error:
            raise _unreadable(model, error) from error
        ports = tuple(
            _Port(port.name, tuple(n if isinstance(n, int) else None for n in port.shape))
            for port in self._session.get_inputs()
        )
        names = tuple(port.name for port in self._session.get_outputs())
        super().__init__("onnxruntime", ports, names)
        self._in_flight = options.in_flight

    def run(self, given: Arrays) -> Found:
        return self._compute(self._checked(given))

    def _compute(self, arrays: list[npt.NDArray[np.float32]]) -> Found:
        found = self._session.run(None, dict(zip(self.inputs, arrays, strict=True)))
        return self._finite(
            {
                name: np.asarray(value, np.float32)
                for name, value in zip(self._outputs, found, strict=True)
            }
        )

    def stream(self, batches: Iterable[Arrays]) -> Iterator[Found]:
        with ThreadPoolExecutor(self._in_flight) as pool:

            def start(given: Arrays) -> Pending:
                return pool.submit(self._compute, self._checked(given)).result

            yield from _in_order(start, batches, self._in_flight)


def _ort_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a file; its errors have no common base of their own."""
    state = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    names = (
        *("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf"),
        *("NoSuchFile", "NotImplemented", "RuntimeException"),
    )
    return tuple(getattr(state, name) for name in names)


def _unreadable(model: Path, error: Exception) -> ModelRefused:
    return ModelRefused(
        f"not a model this engine can read ({' '.join(str(error).split())[:160]})",
        where=model.name,
        expected="an ONNX or OpenVINO model of this version",
        remedy="export the model again",
    )
