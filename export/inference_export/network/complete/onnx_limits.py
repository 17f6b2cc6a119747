"""Limits on an .onnx file, checked before protobuf parses it: its parser crashes when memory ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference_export.resources.wire_format import BYTES, walk_fields

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

MAX_FIELDS = 1_000_000  # of all messages in the file; ViT-giant has about 200,000
MAX_NESTING = 64  # of messages in messages
MAX_VARINT_BYTES = 2**28  # of numbers that take up to eight times as much memory


class LimitError(ValueError):
    """The file exceeds a limit; the message says which."""


def check_limits(content: bytes, message: Descriptor) -> None:
    """Count what a parser would allocate.

    Args:
        content: The file.
        message: The descriptor of the message in it.

    Raises:
        LimitError: It exceeds a limit.
        ValueError: It is no such message.
    """
    from google.protobuf.descriptor import FieldDescriptor

    varints = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
    count = varint_bytes = 0
    waiting = [(0, len(content), message, 0)]
    while waiting:
        begin, end, kind, depth = waiting.pop()
        if depth > MAX_NESTING:
            raise LimitError(f"its messages nest more than {MAX_NESTING} deep")
        known = kind.fields_by_number
        for field in walk_fields(content, begin, end):
            count += 1
            if count > MAX_FIELDS:
                raise LimitError(f"it has more than {MAX_FIELDS:,} fields: nodes, their inputs, outputs and attributes")
            if field.end > end:
                raise ValueError("a field ends beyond its message")
            description = known.get(field.number) if field.wire_type == BYTES else None
            if description is None:
                continue
            if description.message_type is not None:
                waiting.append((field.begin, field.end, description.message_type, depth + 1))
            elif description.cpp_type in varints:
                varint_bytes += field.end - field.begin
    if varint_bytes > MAX_VARINT_BYTES:
        raise LimitError(
            f"it holds {varint_bytes:,} bytes of numbers of variable length, and may hold {MAX_VARINT_BYTES:,}. Keep "
            f"weights as raw data, as torch.onnx.export does"
        )
