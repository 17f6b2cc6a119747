"""Static quantization to 8-bit integers for CPUs, calibrated with images."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference_export.descriptions import describe_error
from inference_export.errors import PrecisionError
from inference_export.full_disk import find_full_disk
from inference_export.onnx_session import INPUT, batches


def quantize(graph: Path, pixels: npt.NDArray[np.uint8], destination: Path, *, advance: Callable[[int], None]) -> None:
    """Quantize a float32 graph's convolutions to 8 bits: static QDQ, weights per channel, activations unsigned.

    The heads stay float32, since they are small and their rounding would show in the results. Weights have 7 bits,
    since AVX2 adds products of two 8-bit numbers in 16 bits, which can overflow.

    Args:
        graph: The float32 graph.
        pixels: Calibration images, uint8 [N, S, S, 3].
        destination: The file to write.
        advance: Called with the number of calibration images run since the last call.

    Raises:
        PrecisionError: ONNX Runtime can't quantize the graph.
        OSError: The disk is full.

    Source:
        Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
        CVPR 2018; ONNX Runtime's static quantization with min-max calibration.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = batches(pixels)

        def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
            batch = next(self._batches, None)
            if batch is None:
                return None
            advance(len(batch))
            return {INPUT: batch}

    with tempfile.TemporaryDirectory(dir=destination.parent) as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        try:
            quant_pre_process(graph, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                destination,
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Relu", "Add", "MaxPool"],
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except OSError:
            raise
        except Exception as error:  # the quantizer raises almost anything on graphs that it does not expect
            if full := find_full_disk(error):
                raise OSError(full.errno, full.strerror, str(destination)) from error
            raise PrecisionError(
                f"ONNX Runtime can't quantize this network ({describe_error(error)}). Export it with --precision fp32."
            ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # The quantizer logs and prints advice that we already follow.
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger().setLevel(level)
