"""Prepares the OpenAPI description for its page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from inference_console.bodies import JSON, MULTIPART

_PARAMETER = re.compile(r"\{\w+\}")


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path, for the page. The values are those of OpenAPI."""

    id: str
    method: str
    path: str
    summary: str
    paragraphs: list[str]
    parameters: list[dict[str, Any]]
    bodies: list[tuple[str, dict[str, Any]]]
    responses: list[tuple[str, dict[str, Any]]]
    example: str


def operations_of(description: dict[str, Any], base_url: str, *, asks_for_tokens: bool) -> list[Operation]:
    """List the operations of a description in its order.

    Args:
        description: The description, OpenAPI 3.1.
        base_url: The console's address, for the examples, without a slash at the end.
        asks_for_tokens: Whether the examples need a token.
    """
    return [
        _operation(method, path, values, base_url, asks_for_tokens=asks_for_tokens)
        for path, methods in description["paths"].items()
        for method, values in methods.items()
    ]


def _operation(method: str, path: str, values: dict[str, Any], base_url: str, *, asks_for_tokens: bool) -> Operation:
    content = values.get("requestBody", {}).get("content", {})
    return Operation(
        id=values["operationId"],
        method=method.upper(),
        path=path,
        summary=values.get("summary", ""),
        paragraphs=values.get("description", "").split("\n\n"),
        parameters=values.get("parameters", []),
        bodies=[(name, body.get("schema", {})) for name, body in content.items()],
        responses=sorted(values["responses"].items()),
        example=_curl(method.upper(), f"{base_url}{path}", content, asks_for_tokens=asks_for_tokens),
    )


def _curl(method: str, url: str, content: dict[str, Any], *, asks_for_tokens: bool) -> str:
    """Write the example of an operation as a command of a shell, with ... for what is to be filled in.

    Neither a class nor a file may be called so: a command that is run as it is changes nothing.
    """
    url = _PARAMETER.sub("...", url)
    lines = ["curl" if method == "GET" or (method == "POST" and content) else f"curl -X {method}"]
    if asks_for_tokens:
        lines.append('-H "Authorization: Bearer $TOKEN"')
    if MULTIPART in content:
        properties = content[MULTIPART].get("schema", {}).get("properties", {"files": {}})
        lines += [
            "-F files=@a.jpg" if name == "files" else f"-F {name}=..."
            for name in properties
            if name in {"files", "class"}
        ]
    elif JSON in content:
        lines += [f"-H 'Content-Type: {JSON}'", "-d @request.json"]
    return " \\\n  ".join([*lines, f"'{url}'"])
