"""Finding a network's weights in what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference_client.command_line.formatting import printable
from inference_export.descriptions import describe_keys, describe_value
from inference_export.errors import ResourcesError

if TYPE_CHECKING:
    from torch import Tensor

_SAVE = "torch.save(network.state_dict(), file)"
_SHOWN_LENGTH = 100  # of a key
_DEPTH = 2  # of the dictionaries around the weights
# An optimizer keeps tensors for each parameter, too.
_NO_WEIGHTS = ("optim", "sched", "scaler", "callback", "loop", "rng")


def find_weights(value: Any, key: str | None, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Find the weights in a checkpoint: the whole of it, the value under a key, or the only candidate.

    Args:
        value: What the file holds.
        key: The key of the weights, ``outer.inner`` if nested; None: there must be one candidate.
        path: The file, for messages.

    Returns:
        Parameter name to tensor; and notes for the user.

    Raises:
        ResourcesError: There are no weights, or several and no key.
    """
    if key is not None:
        return _take(value, key, path), []
    if isinstance(value, Mapping) and _all_tensors(value):
        return dict(value), []
    candidates = dict(_candidates(value, "", _DEPTH)) if isinstance(value, Mapping) else {}
    if len(candidates) == 1:
        ((name, weights),) = candidates.items()
        return weights, [f"the weights are those under {name!r} of the training checkpoint"]
    if candidates:
        raise ResourcesError(
            f"{path} holds several sets of weights, under {describe_keys(list(candidates))}. Choose one, as in "
            f"--checkpoint_key {printable(next(iter(candidates))[:_SHOWN_LENGTH])}.",
            path,
        )
    inside = f" (with {describe_keys(list(value))})" if isinstance(value, Mapping) and value else ""
    raise ResourcesError(
        f"{path} holds {describe_value(value)}{inside}, no state_dict and no training checkpoint with one. Save it "
        f"with {_SAVE}.",
        path,
    )


def _take(value: Any, key: str, path: Path) -> dict[str, Tensor]:
    found = _look_up(value, key)
    if isinstance(found, Mapping) and found and _all_tensors(found):
        return dict(found)
    candidates = list(dict(_candidates(value, "", _DEPTH))) if isinstance(value, Mapping) else []
    instead = f"Weights are under {describe_keys(candidates)}" if candidates else "It holds no weights under any key"
    problem = "has no such key" if found is None else f"holds {describe_value(found)} there, no weights"
    raise ResourcesError(f"--checkpoint_key {key}: {path} {problem}. {instead}.", path)


def _look_up(value: Any, key: str) -> Any:
    if not isinstance(value, Mapping):
        return None
    if key in value:
        return value[key]
    outer, _, inner = key.partition(".")
    return _look_up(value[outer], inner) if inner and outer in value else None


def _candidates(values: Mapping[Any, Any], above: str, depth: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    if "param_groups" in values:
        return
    for key, value in values.items():
        if not isinstance(key, str) or not isinstance(value, Mapping) or key.lower().startswith(_NO_WEIGHTS):
            continue
        if _all_tensors(value) and any(tensor.ndim > 1 for tensor in value.values()):
            yield above + key, dict(value)
        elif depth > 1:
            yield from _candidates(value, f"{above}{key}.", depth - 1)


def _all_tensors(values: Mapping[Any, Any]) -> bool:
    import torch

    return all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in values.items())
