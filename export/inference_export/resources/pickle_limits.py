"""Checking a pickle before it is loaded.

A pickle of a few bytes can take gigabytes (a value with the number 2^28), take for ever to hash (a key of tuples, each
of which holds the previous one twice), or overflow the stack (a key of a million nested tuples). No trainer writes such
pickles.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

MAX_OPERATIONS = 2_000_000  # a number in a log takes about ten
MAX_NESTING = 100
# How many values calls may take, shared values counted each time: FREE_VALUES, and so many for each byte of the file.
FREE_VALUES, VALUES_PER_BYTE = 1_000_000, 32
_MAX_KEY_BITS = 61  # longer integers can be made to collide as keys, and so can tuples
_STORE = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_FETCH = {"GET", "BINGET", "LONG_BINGET"}
_EXTEND = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_CALL = {"REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "FROZENSET"}
_KEYS: dict[str, Callable[[list[_Value]], list[_Value]]] = {
    **dict.fromkeys(("SETITEM", "SETITEMS", "DICT"), lambda taken: taken[::2]),
    **dict.fromkeys(("ADDITEMS", "FROZENSET"), lambda taken: taken),
}
_HASHING = {
    "builtins set", "builtins frozenset", "builtins dict", "__builtin__ set", "__builtin__ frozenset",
    "__builtin__ dict", "collections Counter", "collections OrderedDict",
}  # fmt: skip
_HASHED_NESTING = 2  # of the arguments: a tuple of a list of values


class PickleLimitError(ValueError):
    """A pickle asks for more than plain data needs."""


@dataclass(slots=True)
class _Value:
    """A value on an unpickler's stack.

    Attributes:
        size: Number of values inside, shared values counted each time. The length of text and bytes is added.
        nesting: Depth of containers. Only values of depth 0 may be keys; a longer integer than a key has depth 1.
        text: The text itself, or the name of a function; "" for other values.
    """

    size: int
    nesting: int
    text: str


def check_pickle(file: BinaryIO, length: int) -> None:
    """Follow the operations of a pickle without executing them, and leave the file at the pickle's end.

    Args:
        file: A file at the beginning of a pickle.
        length: Length of the whole file in bytes.

    Raises:
        PickleLimitError: The pickle takes more than ``MAX_OPERATIONS`` operations, nests more deeply than
            ``MAX_NESTING``, has a key that is neither text nor a number, or copies much more than the file holds.
        Exception: Any other exception: the file is not a pickle.
    """
    follower = _Follower(FREE_VALUES + VALUES_PER_BYTE * length)
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if count >= MAX_OPERATIONS:
            raise PickleLimitError(f"it takes more than {MAX_OPERATIONS} operations")
        follower.follow(operation, argument, count)


class _Follower:
    """An unpickler's stack and memo, in outline.

    Args:
        copies: Number of values that all calls together may take.
    """

    def __init__(self, copies: int) -> None:
        self._copies = copies
        self._stack: list[Any] = []  # values, and None for a mark
        self._memo: dict[int, _Value] = {}

    def follow(self, operation: pickletools.OpcodeInfo, argument: Any, count: int) -> None:
        """Follow the operation after the first ``count`` operations."""
        name = operation.name
        if name in _STORE:
            number = len(self._memo) if argument is None else argument
            if number > count:
                raise PickleLimitError(f"it numbers a value {number} after {count} operations")
            self._memo[number] = self._stack[-1]
        elif name in _FETCH:
            self._stack.append(self._memo[argument])
        elif name == "DUP":
            self._stack.append(self._stack[-1])
        elif name == "MARK":
            self._stack.append(None)
        elif not operation.stack_before and operation.stack_after:
            self._stack.append(_make(operation, argument, []))
        elif operation.stack_before:
            taken = self._take(operation)
            value = self._stack[-1] if name in _EXTEND else _make(operation, argument, taken)
            self._check(name, taken)
            value.size += sum(part.size for part in taken)
            value.nesting = max([value.nesting, *(part.nesting + 1 for part in taken)])
            if value.nesting > MAX_NESTING:
                raise PickleLimitError(f"it nests more than {MAX_NESTING} deep")
            if name not in _EXTEND and operation.stack_after:
                self._stack.append(value)

    def _take(self, operation: pickletools.OpcodeInfo) -> list[_Value]:
        """Pop the values that an operation takes, except a container that it extends."""
        before = operation.stack_before
        if pickletools.markobject in before:
            mark = len(self._stack) - 1
            while self._stack[mark] is not None:  # an IndexError below the bottom
                mark -= 1
            taken = self._stack[mark + 1 :]
            del self._stack[mark:]
            return taken
        start = len(self._stack) - len(before) + (operation.name in _EXTEND)
        taken = self._stack[start:]
        del self._stack[start:]
        return [value for value in taken if value is not None]

    def _check(self, name: str, taken: list[_Value]) -> None:
        keys = _KEYS[name](taken) if name in _KEYS else []
        if name == "REDUCE" and taken[0].text in _HASHING:
            keys = [value for value in taken if value.nesting > _HASHED_NESTING]
        if any(key.nesting for key in keys):
            raise PickleLimitError("it has a key that is neither text nor a number")
        if name in _CALL:
            self._copies -= sum(value.size for value in taken)
        if self._copies < 0:
            raise PickleLimitError("it copies the same values again and again")


def _make(operation: pickletools.OpcodeInfo, argument: Any, taken: list[_Value]) -> _Value:
    """Make the value that an operation pushes, without the size of the values that it takes."""
    text = argument if isinstance(argument, str) else ""
    if operation.name == "STACK_GLOBAL":
        text = " ".join(value.text for value in taken)
    size = 1 + len(argument) if isinstance(argument, (str, bytes, bytearray)) else 1
    is_long = isinstance(argument, int) and argument.bit_length() > _MAX_KEY_BITS
    return _Value(size, int(is_long), text)
