"""The first run of a complete network, in a process of its own: it may take all memory, run for ever, or crash.

``python -m inference_export.network.complete.first_run KIND FILE FOLDER CHANNELS SIDE`` writes its outputs into the
folder.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference_export.descriptions import describe_error
from inference_export.errors import ExportError, NetworkError
from inference_export.resources.file_kinds import Kind

TIMEOUT_S = 120
BATCH_SIZES = (1, 3)
_MEMORY_BYTES = 8 * 2**30
_COPIES = 6  # of the file in memory, also during optimization
_MOST_OUTPUT_BYTES = 2**28
_REASON, _NAMES = "reason.txt", "names.json"
_REMEDY = "It must accept any number of images, of this size (--image_size)."

Outputs = dict[str, npt.NDArray[Any]]


def run_first(kind: Kind, content: bytes, path: Path, *, channels: int, side: int) -> list[Outputs]:
    """Run a complete network on noise, in a process of limited time and memory.

    Args:
        kind: ``PT2`` or ``ONNX``.
        content: The network, as one file.
        path: The user's file, for messages.
        channels: Number of channels of an image.
        side: Side S of an image in pixels.

    Returns:
        For each of ``BATCH_SIZES``, every output's name and values. The first images are the same.

    Raises:
        NetworkError: The network fails, or exceeds a limit.
    """
    shape = f"float32 [N, {channels}, {side}, {side}]"
    with tempfile.TemporaryDirectory(prefix="first-run-") as name:
        folder = Path(name)
        (folder / "network").write_bytes(content)
        command = [sys.executable, "-P", "-m", __name__, kind.name, folder / "network", folder, channels, side]
        try:
            done = subprocess.run([str(part) for part in command], timeout=TIMEOUT_S, check=False, capture_output=True)
        except subprocess.TimeoutExpired as error:
            raise NetworkError(
                f"{path}: the network did not answer {sum(BATCH_SIZES)} images, {shape}, within {TIMEOUT_S} s. Check "
                f"what the file computes."
            ) from error
        if done.returncode:
            raise NetworkError(f"{path}: the network failed on images, {shape}: {_reason(folder, done)} {_REMEDY}")
        names = json.loads((folder / _NAMES).read_text(encoding="utf-8"))
        return [
            {each: np.load(folder / f"{count}-{place}.npy") for place, each in enumerate(names)}
            for count in BATCH_SIZES
        ]


def noise(channels: int, side: int) -> npt.NDArray[np.float32]:
    """Make images of noise, float32 [3, channels, S, S], always the same."""
    shape = (max(BATCH_SIZES), channels, side, side)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _reason(folder: Path, done: subprocess.CompletedProcess[bytes]) -> str:
    if (folder / _REASON).exists():
        return (folder / _REASON).read_text(encoding="utf-8")
    if done.returncode < 0:
        return f"it ended the process that ran it ({signal.Signals(-done.returncode).name})."
    return f"the process that ran it ended with exit code {done.returncode}, perhaps for lack of memory."


def _main(kind: str, file: Path, folder: Path, channels: int, side: int) -> None:
    limit = _MEMORY_BYTES + _COPIES * file.stat().st_size
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    images = noise(channels, side)
    run = {Kind.PT2.name: _open_pt2, Kind.ONNX.name: _open_onnx}[kind]
    try:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        call = run(file)
        for count in BATCH_SIZES:
            outputs = call(images[:count])
            if sum(values.nbytes for values in outputs.values()) > _MOST_OUTPUT_BYTES:
                raise NetworkError(f"its outputs take more than {_MOST_OUTPUT_BYTES:,} bytes.")
            for place, values in enumerate(outputs.values()):
                np.save(folder / f"{count}-{place}.npy", values, allow_pickle=False)
            (folder / _NAMES).write_text(json.dumps(list(outputs)), encoding="utf-8")
    except ExportError as error:
        (folder / _REASON).write_text(str(error), encoding="utf-8")
        sys.exit(1)
    except MemoryError:
        (folder / _REASON).write_text(f"it needs more than {limit / 2**30:.0f} GiB of memory.", encoding="utf-8")
        sys.exit(1)
    except Exception as error:
        (folder / _REASON).write_text(f"{describe_error(error)[:500]}.", encoding="utf-8")
        sys.exit(1)


def _open_pt2(file: Path) -> Any:
    import torch

    from inference_export.network.complete.pt2_file import read_program
    from inference_export.network.complete.pt2_program import ProgramNetwork
    from inference_export.regular_files import FileReader
    from inference_export.resources.checkpoint_file import read_checkpoint_file

    program = read_program(read_checkpoint_file(file, FileReader()))
    network = ProgramNetwork(program).eval()

    def run(images: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[Any]]:
        with torch.inference_mode():
            results = network(torch.from_numpy(images))
        return {name: values.float().numpy() for name, values in zip(program.outputs, results, strict=True)}

    return run


def _open_onnx(file: Path) -> Any:
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(file), full_check=True)
    options = onnxruntime.SessionOptions()
    # Optimization would compute constants before the first run; here the first run shows how long they take.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    weights = {each.name for each in session.get_overridable_initializers()}
    (image,) = (each.name for each in session.get_inputs() if each.name not in weights)

    def run(images: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[Any]]:
        results = session.run(names, {image: images})
        return {
            name: values.astype(np.float32)
            for name, values in zip(names, results, strict=True)
            if isinstance(values, np.ndarray) and values.dtype.kind == "f"
        }

    return run


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
