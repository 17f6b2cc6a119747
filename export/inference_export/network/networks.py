"""A network that can be probed, exported and compared: PyTorch's or a complete one."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from inference_export.descriptions import describe_error
from inference_export.errors import NetworkError, ResourcesError
from inference_export.network.complete.first_run import run_first
from inference_export.network.complete.outputs import choose_outputs, refuse_probabilities
from inference_export.network.preprocessing import Preprocessing
from inference_export.network.users_code import users_code
from inference_export.onnx_session import SHOWN_ERROR_LENGTH, limited_run, most_run_bytes
from inference_export.resources.file_kinds import Kind
from inference_export.resources.memory_limit import memory_limit

if TYPE_CHECKING:
    import onnxruntime
    from torch import nn

    from inference_export.network.complete.onnx_file import OnnxModel

PYTORCH = "PyTorch"
_ANY_IMAGES = "It must accept any number of images, whatever they show."
Float32 = npt.NDArray[np.float32]
Pair = tuple[Float32, Float32]


@dataclass(frozen=True, kw_only=True)
class CompleteFile:
    """A file that holds a complete network.

    Attributes:
        path: The file.
        kind: ``PT2`` or ``ONNX``.
        content: The network as one file.
        image_shape: Shape of its input, [N, channels, S, S]; None where any size is admitted.
        wanted: ``EMBEDDING,LOGITS``, the outputs that the user names; None: none.
        data_files: Files of external data, of which ``content`` holds the part that is used.
    """

    path: Path
    kind: Kind
    content: bytes
    image_shape: list[int | None]
    wanted: str | None
    data_files: list[Path] = field(default_factory=list)

    @property
    def side(self) -> int | None:
        """The only side in pixels that the network takes; None: any."""
        return self.image_shape[2] or self.image_shape[3]

    def check(self, preprocessing: Preprocessing) -> None:
        """Refuse a preprocessing that does not give the images that the network takes.

        Raises:
            ResourcesError: The image size or the number of channels is another.
        """
        sizes = {preprocessing.image_size, preprocessing.own_image_size or preprocessing.image_size}
        if self.side is not None and sizes != {self.side}:
            other = next(size for size in sizes if size != self.side)
            raise ResourcesError(
                f"{self.path} takes images of {self.side} x {self.side} only, and {other} is asked for, by "
                f"--image_size or by the preprocessing's file. Correct that, or export the network with any size.",
                self.path,
            )
        channels, given = self.image_shape[1], len(preprocessing.channel_order)
        if channels not in (None, given):
            order, halves = ("grey", [0.5]) if channels == 1 else ("rgb", [0.5] * 3)
            raise ResourcesError(
                f"{self.path} takes images of {channels} channels, and the preprocessing gives {given}. Say what the "
                f"network was trained with in preprocessing.json, for example "
                f'{{"channels": "{order}", "mean": {halves}, "std": {halves}}}.',
                self.path,
            )

    def run_first(self, preprocessing: Preprocessing, classes: int) -> tuple[tuple[str, str], list[Pair]]:
        """Run the network on noise for the first time, in a process of its own, and choose its outputs.

        Args:
            preprocessing: The preprocessing, which gives the images that the network takes.
            classes: Number of classes C'.

        Returns:
            Names of the embeddings and the logits; and their values for 1 and for 3 images.

        Raises:
            NetworkError: The network fails, or its outputs are ambiguous, or probabilities.
        """
        channels = len(preprocessing.channel_order)
        runs = run_first(self.kind, self.content, self.path, channels=channels, side=preprocessing.image_size)
        ordered = self.kind is Kind.PT2
        names = choose_outputs(runs[-1], classes, wanted=self.wanted, ordered=ordered, path=self.path)
        embedding, logits = names
        if runs[-1][logits].ndim == 2:  # noqa: PLR2004 - probing refuses other shapes
            refuse_probabilities(runs[-1][logits], logits, self.path)
        return names, [(run[embedding], run[logits]) for run in runs]


@dataclass(kw_only=True)
class TorchNetwork:
    """A network that PyTorch runs: a module with its weights, or the program of a .pt2 file.

    Attributes:
        module: The network in evaluation mode, on the CPU.
        name: ``--network``'s value; None: the built-in network, or a complete one.
        complete: The .pt2 file; None: the module was made by code.
        notes: Notes for the user.
    """

    module: nn.Module
    name: str | None = None
    complete: CompleteFile | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def who(self) -> str:
        """The network in messages."""
        if self.complete is not None:
            return f"{self.complete.path}: the network"
        return f"--network {self.name}: the network" if self.name else "the network"

    @property
    def reference(self) -> str:
        """What exported graphs are compared with."""
        return PYTORCH if self.complete is None else ".pt2 file"

    @property
    def says_preprocessing(self) -> nn.Module | None:
        """The module that may say its preprocessing; None: it can't."""
        return self.module if self.complete is None else None

    def name_outputs(self, names: tuple[str, str]) -> None:
        """Set the outputs of a complete network."""
        from inference_export.network.complete.pt2_program import ProgramNetwork

        if isinstance(self.module, ProgramNetwork):
            self.module.select(names)

    def answer(self, pixels: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> Pair:
        """Compute embeddings [N, D] and probabilities [N, C'] from pixels, uint8 [N, S, S, 3], with PyTorch.

        Raises:
            NetworkError: The network fails.
        """
        import torch

        from inference_export.network.served import as_served

        limit = memory_limit(most_run_bytes(pixels)) if self.complete is not None else contextlib.nullcontext()
        with users_code(f"{self.who} failed on {len(pixels)} images", _ANY_IMAGES), limit, torch.inference_mode():
            embeddings, probabilities = as_served(self.module, preprocessing)(torch.from_numpy(pixels))
            return embeddings.numpy(), probabilities.numpy()


@dataclass(kw_only=True)
class OnnxNetwork:
    """A complete network in an .onnx file, which ONNX Runtime runs.

    Attributes:
        model: The file's graph.
        complete: The file.
        outputs: Names of the embeddings and the logits; empty before the first run.
        notes: Notes for the user.
    """

    model: OnnxModel
    complete: CompleteFile
    outputs: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    reference: str = ".onnx file"
    says_preprocessing: None = None
    _session: onnxruntime.InferenceSession | None = None

    @property
    def who(self) -> str:
        """The network in messages."""
        return f"{self.complete.path}: the network"

    def name_outputs(self, names: tuple[str, str]) -> None:
        """Set the outputs."""
        self.outputs = names

    def answer(self, pixels: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> Pair:
        """Compute embeddings [N, D] and probabilities [N, C'] from pixels, uint8 [N, S, S, 3], with the file itself.

        The normalization and the softmax are numpy's, so that this shares nothing with the exported graph.

        Raises:
            NetworkError: The network fails.
        """
        import onnxruntime

        if self._session is None:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            self._session = onnxruntime.InferenceSession(
                self.complete.content, options, providers=["CPUExecutionProvider"]
            )
        mean, std = (np.array(each, np.float32).reshape(-1, 1, 1) for each in (preprocessing.mean, preprocessing.std))
        images = pixels[..., list(preprocessing.channel_order)].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(
            255
        )
        normalized = np.ascontiguousarray((images - mean) / std, np.float32)
        try:
            with limited_run(self._session, pixels):
                embeddings, logits = self._session.run(list(self.outputs), {self.model.image: normalized})
        except Exception as error:  # ONNX Runtime raises many types
            shown = describe_error(error)[:SHOWN_ERROR_LENGTH]
            raise NetworkError(f"{self.who} failed on {len(images)} images: {shown}. {_ANY_IMAGES}") from error
        powers = np.exp(logits.astype(np.float32) - logits.max(axis=1, keepdims=True))
        return embeddings.astype(np.float32), powers / powers.sum(axis=1, keepdims=True)


Network = TorchNetwork | OnnxNetwork
