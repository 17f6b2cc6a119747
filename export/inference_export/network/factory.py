"""Making the network: the built-in one, or the user's own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from inference_export.descriptions import describe_type
from inference_export.errors import NetworkError
from inference_export.network.source import importable_from_here, require_module, split_name
from inference_export.network.users_code import users_code

if TYPE_CHECKING:
    from torch import nn


def make_network(name: str | None, classes: int) -> nn.Module:
    """Make a network with its initial weights.

    Args:
        name: ``package.module:factory``, importable from the current folder. Its code is run. None: the built-in
            network.
        classes: Number of classes C', the factory's argument.

    Returns:
        The network, as the factory returned it.

    Raises:
        NetworkError: The factory can't be imported or called, or does not return a ``torch.nn.Module``.
    """
    from torch import nn

    if name is None:
        from inference_export.network.resnet50 import TwoHeadedResNet50

        return TwoHeadedResNet50(classes)
    module, attribute = split_name(name)
    require_module(name)
    with users_code(f"--network {name}: importing {module} failed"), importable_from_here():
        factory = getattr(importlib.import_module(module), attribute, None)
    if not callable(factory):
        problem = f"{module} has no {attribute}" if factory is None else f"{attribute} in {module} is not callable"
        raise NetworkError(
            f"--network {name}: {problem}. It must be a function or class that takes the number of classes and returns "
            f"a torch.nn.Module."
        )
    remedy = "It is called with the number of classes in labels."
    with users_code(f"--network {name}: {attribute}({classes}) failed", remedy), importable_from_here():
        network = factory(classes)
    if not isinstance(network, nn.Module):
        raise NetworkError(
            f"--network {name}: {attribute}({classes}) returned {describe_type(network)}, and must return a "
            f"torch.nn.Module."
        )
    return network
