"""Finding and hashing the source of a user's own network, without running it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from inference_export.errors import NetworkError
from inference_export.regular_files import hash_if_readable
from inference_export.template import MAX_SOURCE_BYTES

NETWORK_NAME = re.compile(r"[^\W\d]\w*(\.(?!py:)[^\W\d]\w*)*:[^\W\d]\w*")


@contextlib.contextmanager
def importable_from_here() -> Iterator[None]:
    """Make modules in the current folder importable, before all others, as ``python -m`` does."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(here)


def suggest_name(text: str) -> str:
    """Return the name that somebody means who gives a file's path, as in ``nets.py:make``; "" if none is evident."""
    file, _, factory = text.partition(":")
    name = f"{file.removeprefix('./').removesuffix('.py').replace('/', '.')}:{factory}"
    return name if name != text and NETWORK_NAME.fullmatch(name) else ""


def split_name(name: str) -> tuple[str, str]:
    """Split ``package.module:factory`` into its two halves."""
    module, _, factory = name.partition(":")
    return module, factory


def require_module(name: str) -> ModuleSpec:
    """Find the module of ``package.module:factory`` without running its code.

    Args:
        name: ``package.module:factory``.

    Raises:
        NetworkError: There is no such module.
    """
    module, _ = split_name(name)
    with importable_from_here():
        spec = _find(module)
    if spec is None:
        raise NetworkError(
            f"--network {name}: there is no module {module}, neither here ({Path.cwd()}) nor among the installed "
            f"packages. Run the command in the folder that contains {module.partition('.')[0]}."
        )
    return spec


def fingerprint(name: str) -> str:
    """Hash the Python source that may take part in making a network, without running it.

    The source is every ``.py`` file in the folder of the network's top-level module or package and, at any depth, in
    this package and in those folders that hold ``.py`` files. Hidden folders and virtual environments are left out. For
    an installed network, only its own package is hashed. Other files that the code reads are not covered.

    Args:
        name: ``package.module:factory``.

    Returns:
        A SHA-256, which does not depend on where the source lies.

    Raises:
        NetworkError: There is no such module, or it has no source file.
    """
    module, _ = split_name(name)
    spec = require_module(name)
    if not spec.has_location or spec.origin is None:
        raise NetworkError(f"--network {name}: {module} is not Python source. Name the module that holds the factory.")
    own = Path(spec.origin).absolute()
    root = own.parents[module.count(".") + (spec.submodule_search_locations is not None)]
    hashes = {
        str(file.relative_to(root)): hash_if_readable(file, MAX_SOURCE_BYTES)
        for file in {own, *_list_sources(root, module.partition(".")[0])}
    }
    return hashlib.sha256(repr(sorted(hashes.items())).encode()).hexdigest()


def _list_sources(root: Path, package: str) -> Iterator[Path]:
    installed = root.resolve() in {
        Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib", "stdlib")
    }
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        if here != root or not installed:
            yield from (here / file for file in files if file.endswith(".py"))
        folders[:] = [
            inner
            for inner in folders
            if not inner.startswith(".")
            and not (here / inner / "pyvenv.cfg").exists()
            and (here != root or inner == package or (not installed and any((here / inner).glob("*.py"))))
        ]


def _find(module: str) -> ModuleSpec | None:
    """Find a module without importing its packages."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # __main__ has no spec
        return None
    for end in range(1, len(rest) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join([top, *rest[:end]]), list(spec.submodule_search_locations))
    return spec
