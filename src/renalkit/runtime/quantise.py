"""How is a network brought to 8-bit numbers, with ranges taken from real pictures?"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from renalkit.errors import MissingExtra
from renalkit.store.files import write_with


def write_int8(
    model: Path, target: Path, given: Mapping[str, npt.NDArray[Any]], batch: int = 8
) -> None:
    """Quantise an ONNX network to 8 bits: weights per channel, activations by calibration.

    given: the calibration pictures by input name, never those the result is judged on. Convolutions
    are quantised (QDQ nodes; weights signed and symmetric, activations unsigned with a zero point),
    where nearly all the work is; everything else stays float32. OpenVINO refuses signed activations
    with a zero point, and a zero point in matrix products of more than two axes.

    Raises:
        MissingExtra: ONNX Runtime or onnx is not installed.
    """
    try:
        from onnxruntime.quantization import (
            CalibrationDataReader,
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{error.name} is not installed",
            remedy="install renalkit with the extra 'export'",
        ) from error

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            n = len(next(iter(given.values())))
            self.batches = iter(
                [{k: v[i : i + batch] for k, v in given.items()} for i in range(0, n, batch)]
            )

        def get_next(  # pyright: ignore[reportIncompatibleMethodOverride]
            self,
        ) -> dict[str, npt.NDArray[np.float32]] | None:  # None ends it, whatever the base says
            return next(self.batches, None)

    with tempfile.TemporaryDirectory() as place:
        ready = Path(place) / "ready.onnx"
        quant_pre_process(str(model), str(ready), skip_symbolic_shape=True)
        write_with(
            target,
            lambda temporary: quantize_static(
                str(ready),
                str(temporary),
                Pictures(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                op_types_to_quantize=["Conv"],
                extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
            ),
        )
