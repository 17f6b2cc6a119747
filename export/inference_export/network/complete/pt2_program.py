"""Running the program of a .pt2 file with PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from inference_export.errors import NetworkError
from inference_export.network.complete.pt2_file import Program, Ref, Step
from inference_export.network.complete.pt2_operators import find_operator

_MOST_INTEGER = 2**63
_GETITEM = "_operator.getitem"


class ProgramNetwork(nn.Module):
    """A network that runs the steps of a .pt2 file.

    Args:
        program: The program. All its outputs are returned, unless some are selected.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        self._names = list(program.tensors)
        for place, tensor in enumerate(program.tensors.values()):
            self.register_buffer(f"tensor_{place}", tensor)
        self._calls = [(find_operator(step.operator), step) for step in program.steps]
        self._image = program.image
        self._unused = _unused_after(program)
        self._outputs = program.outputs
        self._selected = tuple(program.outputs)

    def select(self, outputs: tuple[str, ...]) -> None:
        """Select the outputs to return, by the names that the user knows."""
        self._selected = outputs

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map mean/std-normalized images [N, 3, S, S] to the outputs."""
        values: dict[str, Any] = {name: getattr(self, f"tensor_{place}") for place, name in enumerate(self._names)} | {
            self._image: images
        }
        for (call, step), unused in zip(self._calls, self._unused, strict=True):
            if call is None:
                continue
            arguments = {name: _fill(argument, values) for name, argument in step.arguments.items()}
            if step.operator.startswith("torch."):
                result = call(**arguments)
            else:
                _require_numbers(step.operator, arguments)
                result = _bounded(call(*arguments.values()))
            values.update(_name(result, step))
            for name in unused:
                values.pop(name, None)
        return tuple(values[self._outputs[name]] for name in self._selected)


def _unused_after(program: Program) -> list[list[str]]:
    """List, for each step, the values that no later step and no output needs, so that their memory can be freed."""
    needed = set(program.outputs.values())
    unused: list[list[str]] = []
    for step in reversed(program.steps):
        names = {*_references([*step.arguments.values()]), *step.results}
        unused.append([name for name in names if name not in needed])
        needed |= names
    return unused[::-1]


def _references(arguments: list[Any]) -> Iterator[str]:
    for argument in arguments:
        if isinstance(argument, Ref):
            yield argument.name
        elif isinstance(argument, list):
            yield from _references(argument)


def _fill(argument: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(argument, Ref):
        return values[argument.name]
    if isinstance(argument, list):
        return [_fill(each, values) for each in argument]
    return argument


def _name(result: Any, step: Step) -> dict[str, Any]:
    if not step.unpacks:
        return {step.results[0]: result} if step.results else {}
    return dict(zip(step.results, result, strict=False))


def _require_numbers(operator: str, arguments: Mapping[str, Any]) -> None:
    """Refuse Python's operators on lists: one times a number takes any amount of memory."""
    if operator != _GETITEM and any(isinstance(value, (list, tuple)) for value in arguments.values()):
        raise NetworkError(f"the .pt2 file calls {operator} with a list, and may with numbers only. Export it again.")


def _bounded(value: Any) -> Any:
    if isinstance(value, int) and abs(value) >= _MOST_INTEGER:
        raise NetworkError("the .pt2 file computes an integer of more than 64 bits. Export the network again.")
    return value
