"""The page on Triton's releases names every field that we write and every flag that we pass, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_export.repository.configs import RepositoryShape, Version, parse_config, render_configs
from inference_server.addresses import LOOPBACK
from inference_server.server_arguments import serving_arguments, supervision_arguments
from inference_server.triton import arguments as triton_arguments
from inference_server.triton import process
from inference_server.triton.access import Access
from inference_server.triton.launch import prepare_launch
from tests.deploy.manifests import (
    INFERENCE_SERVICE,
    Manifest,
    all_containers,
    compose_file,
    image_command,
    manifest,
    server_container,
)

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "triton-releases.md").read_text(encoding="utf-8")
RUN_BY_TESTS = "T"


class _Started(Exception):  # noqa: N818  (no error)
    """Raised in place of a program's start, with its command."""


def _rows(heading: str) -> dict[str, set[str]]:
    """Read the table under a heading: each name in its first column, with the signs in its last."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    assert rows
    return {name: set(re.findall(r"\b[TNBS]\b", row[-1])) for row in rows for name in re.findall("`([^`]+)`", row[0])}


def _fields(message: Any, prefix: str = "") -> Iterator[str]:
    for field, value in message.ListFields():
        name = f"{prefix}{field.name}"
        if field.message_type is None:
            yield name
        elif field.message_type.GetOptions().map_entry:
            values_are_messages = field.message_type.fields_by_name["value"].message_type is not None
            yield from (f"{name}.{key}" for key in value) if values_are_messages else [name]
        else:
            for each in [value] if hasattr(value, "ListFields") else value:
                yield from _fields(each, f"{name}.")


def _flags(arguments: list[str]) -> set[str]:
    return {argument.partition("=")[0] for argument in arguments if argument.startswith("--") and argument != "--"}


def _for_triton(arguments: list[str]) -> list[str]:
    return arguments[arguments.index("--") + 1 :] if "--" in arguments else []


@pytest.fixture
def flags_for_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The flags that pip's tritonserver gets, on a machine without a GPU."""
    monkeypatch.setattr(triton_arguments, "_GPU_DRIVER", tmp_path / "none")
    access = Access(pid=1, grpc_port=1, key="key", repository=str(tmp_path), version=1, configs={})
    serving = serving_arguments(tmp_path, host=LOOPBACK, port=1, metrics_port=2, arguments=[])
    watched = prepare_launch([*serving, *supervision_arguments(tmp_path, access, "prefix")])

    def start(command: list[str], **_: object) -> None:
        raise _Started(command)

    monkeypatch.setattr(process, "start_child", start)
    with pytest.raises(_Started) as started, process.running_server(tmp_path, log=tmp_path / "log"):
        pass
    alone = prepare_launch([argument for argument in started.value.args[0] if argument.startswith("--")])
    return _flags(watched.arguments) | _flags(alone.arguments)


def test_page_names_every_field_that_an_export_writes_and_no_other() -> None:
    version = Version(number=1, network=1)
    written = set()
    for device in ("cpu", "gpu"):
        shape = RepositoryShape(
            image_size=64, embedding_size=4, network_classes=2, max_batch_size=8, device=device, cpus=2
        )
        for config in render_configs(shape, versions=[version], pinned=version).values():
            written |= set(_fields(parse_config(config)))
    assert set(_rows("Fields of the configurations")) == written


def test_page_names_every_flag_that_is_passed_and_says_which_the_tests_run(
    flags_for_pip: set[str], rendered: dict[str, list[Manifest]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = tmp_path / "tritonserver"  # as new as the container's
    binary.write_text(f"#!/bin/sh\necho '{triton_arguments.LIMIT_BODIES} <integer>'\n")
    binary.chmod(0o755)
    monkeypatch.setattr(triton_arguments, "find_installed_binary", lambda: binary)
    native = _flags(serving_arguments(tmp_path, host=LOOPBACK, port=1, metrics_port=2, arguments=[]))
    given = [image_command(), server_container(manifest(INFERENCE_SERVICE))["args"]]
    given += [container["args"] for container in all_containers(rendered) if "--" in container.get("args", ())]
    given.append(compose_file()["services"]["server"].get("command", []))
    deployed = {flag for arguments in given for flag in _flags(_for_triton(arguments))}
    assert deployed
    rows = _rows("Flags")
    assert set(rows) == flags_for_pip | native | deployed
    assert {flag for flag, signs in rows.items() if RUN_BY_TESTS in signs} == flags_for_pip
