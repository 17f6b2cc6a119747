"""Telling what a checkpoint file is, by its content: the four kinds that can be read, and many that can't."""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import dataclass
from enum import Enum
from itertools import islice

from inference_export.resources.wire_format import VARINT, walk_fields

EXPECTED = (
    "A checkpoint is a PyTorch state_dict or training checkpoint, a .safetensors file, or a complete network as .pt2 "
    "or .onnx."
)
_SAVE_WEIGHTS = "Save the weights alone: torch.save(network.state_dict(), file)"
_TO_ONNX = "Convert the network to an .onnx file that returns (embedding, logits)"
_UNPACK = "Unpack it, and name the checkpoint inside"
_FETCH = "Fetch the file itself"
_TF_TO_ONNX = f"{_TO_ONNX}, for example with tf2onnx"
_HEAD_BYTES = 4096
_TAR_MAGIC = slice(257, 262)
_FLATBUFFER_MAGIC = slice(4, 8)
_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the first number in a file of PyTorch before 1.6
_LONGEST_HEADER = 10_000_000  # of a .safetensors file: 100,000 tensors
_ZIP_ENTRY = b"PK\1\2"  # in the list of a zip archive's contents
_MOST_ENTRIES = 100_000
_LENGTH_BYTES = 8


class Kind(Enum):
    """The kinds of checkpoint files that can be read."""

    TORCH = "PyTorch file"
    SAFETENSORS = ".safetensors file"
    PT2 = ".pt2 file"
    ONNX = ".onnx file"


@dataclass(frozen=True)
class Other:
    """A file that is no readable checkpoint.

    Attributes:
        what: What it is, as in "is a TorchScript archive".
        remedy: What to do, as a sentence without its period.
    """

    what: str
    remedy: str


_MAGIC: tuple[tuple[bytes, Other], ...] = (
    (b"\x89HDF\r\n\x1a\n", Other("a Keras or HDF5 file (.h5)", _TF_TO_ONNX)),
    (b"version https://git-lfs", Other("a Git LFS pointer, not the file itself", "Run: git lfs pull")),
    (b"GGUF", Other("a GGUF file, the format of llama.cpp", "Name the PyTorch checkpoint that it was made from")),
    (b"\x1f\x8b", Other("a gzip archive", _UNPACK)),
    (b"BZh", Other("a bzip2 archive", _UNPACK)),
    (b"\xfd7zXZ\0", Other("an xz archive", _UNPACK)),
    (b"\x28\xb5\x2f\xfd", Other("a Zstandard archive", _UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", Other("a 7z archive", _UNPACK)),
    (b"Rar!", Other("a RAR archive", _UNPACK)),
    (b"\x93NUMPY", Other("a NumPy array (.npy)", _SAVE_WEIGHTS)),
    (b"ftrt", Other("a TensorRT engine", "Name the checkpoint or .onnx file that it was made from")),
    (b"ptrt", Other("a TensorRT engine", "Name the checkpoint or .onnx file that it was made from")),
    (b"\xff\xd8\xff", Other("a JPEG image", "Name the checkpoint with -r, and base images with -data")),
    (b"\x89PNG", Other("a PNG image", "Name the checkpoint with -r, and base images with -data")),
    (b"%PDF", Other("a PDF document", "Name the checkpoint")),
    (b"\x7fELF", Other("a compiled library or program", "Name the checkpoint")),
)
_FLATBUFFERS = {
    b"TFL3": Other("a TensorFlow Lite file", f"{_TO_ONNX}, from the network that it was made from"),
    b"ORTM": Other("an ONNX Runtime file (.ort)", "Name the .onnx file that it was made from"),
    b"ET12": Other("an ExecuTorch file (.pte)", "Name the .pt2 or checkpoint that it was made from"),
}


def identify(content: bytes) -> Kind | Other:  # noqa: PLR0911 - a case each
    """Tell what a file is, without reading any object in it.

    Args:
        content: The whole file.
    """
    if not content:
        return Other("an empty file of 0 bytes", "Save or fetch it again")
    for magic, other in _MAGIC:
        if content.startswith(magic):
            return other
    if content[_FLATBUFFER_MAGIC] in _FLATBUFFERS:
        return _FLATBUFFERS[content[_FLATBUFFER_MAGIC]]
    if content[_TAR_MAGIC] == b"ustar":
        return Other("a tar archive", _UNPACK)
    if content.startswith(b"PK\3\4"):
        return _identify_zip(content)
    if content.startswith(b"\x80"):
        return _identify_pickle(content)
    if content[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{":
        return _identify_safetensors(content)
    return _identify_onnx(content) or _identify_text(content[:_HEAD_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n"), len(content))


def _identify_zip(content: bytes) -> Kind | Other:  # noqa: PLR0911 - a case each
    if (count := content.count(_ZIP_ENTRY)) > _MOST_ENTRIES:  # zipfile takes seconds and gigabytes for millions
        return Other(
            f"a zip archive of {count:,} entries, and a checkpoint has fewer than {_MOST_ENTRIES:,}", _SAVE_WEIGHTS
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return Other(
            f"a PyTorch file or other zip archive that breaks off: its {len(content):,} bytes lack the list of its "
            f"contents, which stands at the end",
            "Fetch all of it, and compare the length with the original's",
        )
    within = {name.partition("/")[2] or name for name in names} | set(names)
    if "archive_format" in within or "serialized_exported_program.json" in within:
        return Kind.PT2
    if "constants.pkl" in within or any(name.startswith("code/") for name in within):
        return Other(
            "a TorchScript archive (torch.jit.save)",
            "It holds code. Save the weights alone, torch.save(network.state_dict(), file), with --network for an "
            "architecture of your own; or export the network to .onnx with torch.onnx.export",
        )
    if "data.pkl" in within:
        return Kind.TORCH
    if "saved_model.pb" in within:
        return Other("a zipped TensorFlow SavedModel", _TF_TO_ONNX)
    if "model.weights.h5" in within:
        return Other("a Keras file (.keras)", _TF_TO_ONNX)
    if names and all(name.endswith(".npy") for name in names):
        return Other("an archive of NumPy arrays (.npz)", _SAVE_WEIGHTS)
    if any(name.startswith("MAR-INF/") for name in names):
        return Other("a TorchServe archive (.mar)", _UNPACK)
    return Other("a zip archive that torch.save did not write", _UNPACK)


def _identify_pickle(content: bytes) -> Kind | Other:
    if _TORCH_MAGIC in content[:32]:
        return Kind.TORCH
    return Other("a plain pickle that torch.save did not write", _SAVE_WEIGHTS)


def _identify_safetensors(content: bytes) -> Kind | Other:
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    if length > _LONGEST_HEADER:
        return Other(
            f"a .safetensors file whose header claims {length:,} bytes, and at most {_LONGEST_HEADER:,} are read",
            "Save it again with safetensors.torch.save_file",
        )
    begin = _LENGTH_BYTES + length
    if begin > len(content):
        return Other(
            f"a .safetensors file that breaks off: it has {len(content):,} bytes, and its header alone takes {begin:,}",
            _FETCH,
        )
    ends = re.findall(rb'"data_offsets"\s*:\s*\[\s*\d{1,19}\s*,\s*(\d{1,19})\s*\]', content[_LENGTH_BYTES:begin])
    expected = begin + max(map(int, ends), default=0)
    if expected > len(content):
        return Other(
            f"a .safetensors file that breaks off: it has {len(content):,} of the {expected:,} bytes that its header "
            f"announces",
            _FETCH,
        )
    return Kind.SAFETENSORS


_ONNX_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})
_ONNX_NUMBERS = frozenset({1, 5})  # the others are texts and messages
_ONNX_GRAPH = 7
_MOST_FIELDS = 100_000


def _identify_onnx(content: bytes) -> Kind | Other | None:
    """Recognize the fields of an ONNX model, and how much of the last one is missing."""
    seen: set[int] = set()
    expected = 0
    try:
        for field in islice(walk_fields(content, 0, len(content)), _MOST_FIELDS):
            if field.number not in _ONNX_FIELDS or (field.wire_type == VARINT) != (field.number in _ONNX_NUMBERS):
                return None
            seen.add(field.number)
            expected = field.end
    except ValueError:
        return None
    if _ONNX_GRAPH not in seen:
        return None
    if expected > len(content):
        return Other(f"an .onnx file that breaks off: it has {len(content):,} of at least {expected:,} bytes", _FETCH)
    return Kind.ONNX


def _identify_text(head: bytes, length: int) -> Other:
    start = head[:256].lower()
    if start.startswith((b"<!doctype html", b"<html")) or b"<head" in start:
        return Other(
            "an HTML page, such as a login or error page saved in place of the file",
            f"{_FETCH}, signed in where needed",
        )
    if start.startswith((b"<?xml", b"<net")):
        what = "an OpenVINO network (.xml)" if b"<net" in head else "an XML file"
        return Other(what, "Name the checkpoint or .onnx file that it was made from")
    if head.startswith((b"{", b"[")):
        return Other("a JSON file" if _starts_json(head) else "a text file", "Name the checkpoint")
    try:
        head[: -4 if len(head) > _HEAD_BYTES // 2 else None].decode("utf-8")
    except UnicodeDecodeError:
        text = False
    else:
        text = b"\0" not in head
    if text:
        return Other("a text file", "Name the checkpoint")
    return Other(f"a file of {length:,} bytes of no kind that is known here", _SAVE_WEIGHTS)


def _starts_json(head: bytes) -> bool:
    try:
        json.loads(head)
    except json.JSONDecodeError as error:
        return error.pos > 1 or len(head) == 1
    except (UnicodeDecodeError, RecursionError):
        return False
    return True
