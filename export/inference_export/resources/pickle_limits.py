"""What a pickle would do, looked at before it is loaded.

A pickle of a few bytes can take gigabytes (a value that is numbered 2^28), be hashed for ever (a key of tuples that
each hold the one before twice), or overflow the stack (a key of a million tuples inside each other). No trainer writes
such a pickle.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

MAX_OPERATIONS = 2_000_000  # numbers of a log take about ten each
MAX_NESTING = 100
# Values that calls and keys may take, shared ones counted each time: so many, and for each byte of the file.
FREE_VALUES, VALUES_PER_BYTE = 1_000_000, 32
_MAX_KEY_BITS = 61  # longer integers can be made to collide, and so can tuples
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
_HASHED_NESTING = 2  # arguments: a tuple of a list of values


class PickleLimitError(ValueError):
    """A pickle asks for more than plain data needs."""


@dataclass(slots=True)
class _Value:
    """A value on an unpickler's stack.

    Args:
        size: Number of values in it, shared ones counted each time; text and bytes count by their length.
        nesting: 0 for what can be a key: text, and numbers that are not long.
        text: The text that it is, or the name of the function that it is.
    """

    size: int
    nesting: int
    text: str


def check_pickle(file: BinaryIO, length: int) -> None:
    """Follow the operations of a pickle without doing them, and leave the file at the pickle's end.

    Args:
        file: At the beginning of a pickle.
        length: Bytes of the whole file.

    Raises:
        PickleLimitError: The pickle takes more than ``MAX_OPERATIONS`` operations, nests more deeply than
            ``MAX_NESTING``, has a key that is neither text nor a number, or copies much more than the file holds.
        Exception: Of any kind: the file is no pickle.
    """
    follower = _Follower(FREE_VALUES + VALUES_PER_BYTE * length)
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if count >= MAX_OPERATIONS:
            raise PickleLimitError(f"it takes more than {MAX_OPERATIONS} operations")
        follower.follow(operation, argument, count)


class _Follower:
    """An unpickler's stack and memory, in outline.

    Args:
        copies: Values that calls may take in all.
    """

    def __init__(self, copies: int) -> None:
        self._copies = copies
        self._stack: list[Any] = []  # of values; None is a mark
        self._memo: dict[int, _Value] = {}

    def follow(self, operation: pickletools.OpcodeInfo, argument: Any, count: int) -> None:
        """Follow one operation, before which there were ``count``."""
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
            value.size += sum(each.size for each in taken)
            value.nesting = max([value.nesting, *(each.nesting + 1 for each in taken)])
            if value.nesting > MAX_NESTING:
                raise PickleLimitError(f"it nests more than {MAX_NESTING} deep")
            if name not in _EXTEND and operation.stack_after:
                self._stack.append(value)

    def _take(self, operation: pickletools.OpcodeInfo) -> list[_Value]:
        """Pop what an operation pops, without the container that it extends."""
        before = operation.stack_before
        if pickletools.markobject in before:
            mark = len(self._stack) - 1
            while self._stack[mark] is not None:  # beyond the bottom: an IndexError
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
    """Make the value that an operation pushes, before it takes others."""
    text = argument if isinstance(argument, str) else ""
    if operation.name == "STACK_GLOBAL":
        text = " ".join(value.text for value in taken)
    size = 1 + len(argument) if isinstance(argument, (str, bytes, bytearray)) else 1
    is_long = isinstance(argument, int) and argument.bit_length() > _MAX_KEY_BITS
    return _Value(size, int(is_long), text)
