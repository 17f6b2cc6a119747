"""The bodies of requests, in KServe's binary form: JSON, and then the tensors as they are."""

import asyncio
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import np_to_triton_dtype

# As much as is written before other tasks of the event loop have their turn.
PART_BYTES = 2**18


@dataclass(frozen=True, kw_only=True)
class Body:
    """The body of a request.

    Attributes:
        content: JSON, and then the tensors.
        json_bytes: Size of the JSON.
    """

    content: bytes
    json_bytes: int


class Upload(aiohttp.Payload):
    """Writes a body without copying it, as aiohttp would."""

    _value: bytes
    _autoclose = True  # there is nothing to close

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._size = len(content)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body."""
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write the body up to a length, in bytes."""
        content = memoryview(self._value)[:content_length]
        for start in range(0, len(content), PART_BYTES):
            if start:
                await asyncio.sleep(0)
            await writer.write(content[start : start + PART_BYTES])

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text."""
        return self._value.decode(encoding, errors)


def encode_files(files: Iterable[bytes], outputs: Sequence[str], parameters: Mapping[str, Any]) -> Body:
    """Encode a request to the ensemble, copying the files only once.

    Args:
        files: The files of N images, at least one.
        outputs: Names of the outputs to ask for.
        parameters: The request's parameters.

    Returns:
        The body, with one tensor ``IMAGE``, BYTES [N, 1].
    """
    elements: list[bytes] = []
    for file in files:
        elements += (struct.pack("<I", len(file)), file)
    image = {
        "name": "IMAGE",
        "shape": [len(elements) // 2, 1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": sum(map(len, elements))},
    }
    request: dict[str, Any] = {
        "inputs": [image],
        "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in outputs],
    }
    if parameters:
        request["parameters"] = parameters
    header = json.dumps(request).encode()
    return Body(content=b"".join([header, *elements]), json_bytes=len(header))


def encode_tensors(
    inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str], parameters: Mapping[str, Any] | None
) -> Body:
    """Encode a request to any model.

    Args:
        inputs: The input tensors, batch dimension first.
        outputs: Names of the outputs to ask for.
        parameters: The request's parameters; None for no parameters.
    """
    tensors = []
    for name, values in inputs.items():
        tensor = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
        tensor.set_data_from_numpy(values)
        tensors.append(tensor)
    content, json_bytes = InferenceServerClient.generate_request_body(
        tensors, outputs=[InferRequestedOutput(name) for name in outputs], parameters=parameters
    )
    return Body(content=content, json_bytes=json_bytes)
