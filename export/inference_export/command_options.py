"""The command-line options of an export, made from ``ExportOptions`` for every command that exports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import click

from inference_client.command_line.options import FiniteFloatRange
from inference_export.export_options import Option, Range, read_options
from inference_export.network.preprocessing import DEFAULT_IMAGE_SIZE

_SHORT_NAMES = {"resources": "-r", "base_data": "-data", "sim_thres": "-thres", "batch_size": "-btch"}
_FILES = ("preprocessing",)  # paths of files; all others are of folders
# The defaults in words, for options whose default value does not tell.
_SHOWN_DEFAULTS = {
    "mode": "clustering with base data, classification without",
    "checkpoint": "the only one, or the best by the logs",
    "checkpoint_key": "the only candidate",
    "network": "ResNet-50 with two heads",
    "outputs": "told by their names or shapes",
    "image_size": f"the network's own, or {DEFAULT_IMAGE_SIZE} if it names none",
    "preprocessing": "the network's own",
    "calibration": "the base data",
    "cache": "classify-triton in your cache folder",
}
_METAVARS = {
    "resources": "DIR|FILE",
    "checkpoint": "FILE",
    "checkpoint_key": "KEY",
    "network": "PACKAGE.MODULE:FACTORY",
    "outputs": "EMBEDDING,LOGITS",
    "preprocessing": "FILE",
}


def resources_option(**attributes: Any) -> Callable[[Any], Any]:
    """Give a command ``-r/--resources``, with these attributes of a click option."""
    return _make("resources", **attributes)


def base_data_option(**attributes: Any) -> Callable[[Any], Any]:
    """Give a command ``-data/--base_data``, with these attributes of a click option."""
    return _make("base_data", **attributes)


def export_options(command: Any) -> Any:
    """Give a command all other options of an export."""
    for option in reversed(read_options()):
        if option.name not in ("resources", "base_data"):
            command = _make(option.name)(command)
    return command


def _make(name: str, **attributes: Any) -> Callable[[Any], Any]:
    option = next(option for option in read_options() if option.name == name)

    def check(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        try:
            if value is not None:
                option.check(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
        return value

    names = [*filter(None, [_SHORT_NAMES.get(name)]), f"--{name}"]
    common: dict[str, Any] = {"help": option.description, "callback": check}
    if option.default is not MISSING:  # for click, an option with a default is never missing
        common["default"] = option.default
    if option.kind is bool:
        return click.option(*names, is_flag=True, **common | attributes)
    metavar = _METAVARS.get(name, "DIR" if option.kind is Path else None)
    common |= {"type": _value_type(option), "metavar": metavar, "show_default": _SHOWN_DEFAULTS.get(name, True)}
    return click.option(*names, **common | attributes)


def _value_type(option: Option) -> Any:
    if option.choices:
        return click.Choice(option.choices)
    if option.name == "checkpoint":  # may be a name in the resources
        return click.Path(path_type=Path)
    if option.kind is Path:
        if option.name in _FILES:
            return click.Path(exists=True, dir_okay=False, path_type=Path)
        # Folders without a default are read, the others are written.
        exists = option.default in (None, MISSING)
        return click.Path(exists=exists, file_okay=option.name == "resources", path_type=Path)
    if isinstance(option.limit, Range):
        low, high = option.limit.low, option.limit.high
        return click.IntRange(int(low), int(high)) if option.kind is int else FiniteFloatRange(low, high)
    return option.kind
