"""Where a network of the user's own is defined, and a fingerprint of that, found without running any of it."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from inference_export.errors import NetworkError
from inference_export.regular_files import read_regular_file
from inference_export.template import MAX_SOURCE_BYTES

NETWORK_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


@contextlib.contextmanager
def importable_from_here() -> Iterator[None]:
    """Have modules of the current folder found first, as ``python -m`` has."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(here)


def split_name(name: str) -> tuple[str, str]:
    """Split ``package.module:factory`` into its two halves."""
    module, _, factory = name.partition(":")
    return module, factory


def require_module(name: str) -> ModuleSpec:
    """Find the module of ``package.module:factory`` without running any of its code.

    Raises:
        NetworkError: There is none.
    """
    module, _ = split_name(name)
    with importable_from_here():
        found = _find(module)
    if found is None:
        raise NetworkError(
            f"--network {name}: there is no module {module}, neither here ({Path.cwd()}) nor among the installed "
            f"packages. Run the command in the folder that holds {module.partition('.')[0]}."
        )
    return found


def fingerprint(name: str) -> str:
    """Hash the source of a network: its module, and those beside it that it imports.

    Followed are ``import`` statements, from module to module, to what lies in the same folder as the network's own
    top-level module or package; of an installed one, only to its own package. Imports that are computed while running,
    and other files that the code reads, are not seen.

    Args:
        name: ``package.module:factory``.

    Returns:
        A SHA-256, the same wherever the sources lie.

    Raises:
        NetworkError: There is no such module, or it is not Python source.
    """
    module, _ = split_name(name)
    with importable_from_here():
        found = require_module(name)
        root = _root(module, found)
        installed = root in {Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib", "stdlib")}
        sources: dict[str, str] = {}
        waiting = _with_parents(module)
        while waiting:
            current = waiting.pop()
            top = current.partition(".")[0]
            if current in sources or (installed and top != module.partition(".")[0]):
                continue
            spec = _find(current)
            if spec is None or spec.origin is None or not spec.has_location or _root(current, spec) != root:
                continue
            try:
                source = read_regular_file(Path(spec.origin), MAX_SOURCE_BYTES)
            except OSError as error:
                raise NetworkError(f"--network {name}: {spec.origin} can't be read ({error.strerror}).") from error
            sources[current] = hashlib.sha256(source).hexdigest()
            waiting += _imported(source, current, is_package=spec.submodule_search_locations is not None)
    if module not in sources:
        raise NetworkError(f"--network {name}: {module} is not Python source. Name the module that holds the factory.")
    return hashlib.sha256(repr(sorted(sources.items())).encode()).hexdigest()


def _find(module: str) -> ModuleSpec | None:
    """Find a module without importing its packages."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # __main__ has none
        return None
    for end in range(1, len(rest) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join([top, *rest[:end]]), list(spec.submodule_search_locations))
    return spec


def _root(module: str, spec: ModuleSpec) -> Path | None:
    """Return the folder that holds a module's top-level module or package."""
    if not spec.has_location or spec.origin is None:
        return None
    above = module.count(".") + (spec.submodule_search_locations is not None)
    return Path(spec.origin).resolve().parents[above]


def _imported(source: bytes, module: str, *, is_package: bool) -> list[str]:
    """Name what a module may import: what follows ``from ... import`` may be modules as well."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # importing it will say so
        return []
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if is_package else module.split(".")[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return [parent for name in names for parent in _with_parents(name)]


def _with_parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
