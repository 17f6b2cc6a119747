"""Exports while their resources are replaced, again and again."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import random
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from inference_client import Classify
from inference_export.repository.versions import exported_version
from tests import reference, tiny_network
from tests.chaos.load import is_right
from tests.chaos.reloads import run_command, run_export
from tests.chaos.tally import Tally
from tests.resources import write_faces, write_resources
from tests.watched import watched_server

_IMAGES = 3  # of each class
_CLASSES = ("alpha", "beta")
_PAUSE_S = 0.005  # between two changes
# One in so many changes is to base images or labels. If an image differs when it is read again, the export ends, but
# some exports must succeed.
_CHECKPOINTS = 60


@dataclass(frozen=True, kw_only=True)
class _Resources:
    """Trained resources and base data, with all complete contents of each file.

    Attributes:
        trained: Folder of the trained resources.
        base: Folder of the base images.
        contents: All contents of each file.
    """

    trained: Path
    base: Path
    contents: dict[Path, list[bytes]] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Path:
        return self.trained / "models" / "model_1"

    def images(self) -> list[Path]:
        """List the base images, sorted."""
        return sorted(path for path in self.contents if path.is_relative_to(self.base))


def change_during_exports(folder: Path, queries: Sequence[Path], times: int) -> Tally:
    """Export while every file is replaced. The server must answer with exactly the contents that the provenance names.

    Args:
        folder: A folder to make, for all files.
        queries: The query images.
        times: Number of exports during the changes.
    """
    tally = Tally(what="resources changed during an export", times=times)
    resources = _write(folder)
    repository = folder / "repository"
    arguments = ("-r", resources.trained, "-data", resources.base, "--network", tiny_network.NETWORK, "-thres", -1,
                 "--model_repository", repository, "--cache", folder / "cache")  # fmt: skip
    first = run_export(*arguments)
    assert first.exit_code == 0, first.output
    exported = 0
    with watched_server("--model_repository", repository, log=folder / "log") as server:
        for _ in range(times):
            with _changing(resources):
                result = run_export(*arguments)
            assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
            if result.exit_code:
                continue
            exported += 1
            done = run_command("reload-repository", "--port", server.port)
            assert done.returncode == 0, done.stderr
            _ask(server.url, queries, _recorded(repository, resources), tally)
    # A start with -r exports the final contents, unless the last export was made of them.
    with watched_server(*arguments, log=folder / "log") as server:
        now = [file.read_bytes() for file in (resources.checkpoint, *resources.images())]
        assert _recorded(repository, resources) == now, "what lies there was not exported"
        _ask(server.url, queries, now, tally)
    tally.notes.append(f"{exported} of {times} exports succeeded; the others refused what they read")
    return tally


def _write(folder: Path) -> _Resources:
    resources = _Resources(trained=folder / "trained", base=folder / "base")
    write_resources(resources.trained, {"model_1": {}}, {"a": 0, "b": 1})
    for seed in range(3):
        file = io.BytesIO()
        torch.save(tiny_network.make_state(seed), file)
        resources.contents.setdefault(resources.checkpoint, []).append(file.getvalue())
    labels = resources.trained / "labels"
    resources.contents[labels] = [labels.read_bytes()]
    for number, name in enumerate(_CLASSES):
        for faces in (range(_IMAGES), range(100, 100 + _IMAGES)):
            for image, face in enumerate(faces, start=number * 20):
                (source,) = write_faces(folder / "faces", [face + number * 20], "x")
                file_in_base = resources.base / name / f"{image:03}.png"
                resources.contents.setdefault(file_in_base, []).append(source.read_bytes())
        (resources.base / name).mkdir(parents=True)
    shutil.rmtree(folder / "faces")
    for path, contents in resources.contents.items():
        path.write_bytes(contents[0])
    return resources


@contextmanager
def _changing(resources: _Resources) -> Iterator[None]:
    """Replace files until the context ends. Then each file is complete."""
    ended = threading.Event()
    chance = random.Random(0)
    others = [path for path in resources.contents if path != resources.checkpoint]

    def change() -> None:
        while not ended.wait(_PAUSE_S):
            path = resources.checkpoint if chance.randrange(_CHECKPOINTS) else chance.choice(others)
            content = chance.choice(resources.contents[path])
            if chance.randrange(2):
                new = path.parent.parent / ".new"  # the export ignores hidden base images
                new.write_bytes(content)
                new.replace(path)
            else:
                path.write_bytes(content[: len(content) // 2])  # cut short, for a moment
                path.write_bytes(content)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _recorded(repository: Path, resources: _Resources) -> list[bytes]:
    """Find a version's contents by the hashes in its provenance: the checkpoint, then the base images."""
    version = exported_version(repository)
    assert version is not None
    file = repository / "cluster_head" / version.folder("cluster_head") / "provenance.json"
    provenance: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    by_hash = {hashlib.sha256(content).hexdigest(): content for content in resources.contents[resources.checkpoint]}
    chosen = provenance["resources"]["chosen"]
    assert chosen in by_hash, "a checkpoint that never lay there whole was exported"
    images = resources.images()
    for contents in itertools.product(*(resources.contents[image] for image in images)):
        lines = (
            f"{image.relative_to(resources.base)}/{hashlib.sha256(content).hexdigest()}\n"
            for image, content in zip(images, contents, strict=True)
        )
        if hashlib.sha256("".join(lines).encode()).hexdigest() == provenance["base data"]:
            return [by_hash[chosen], *contents]
    raise AssertionError("base images that never lay there whole were exported")


def _ask(url: str, queries: Sequence[Path], made_of: Sequence[bytes], tally: Tally) -> None:
    """Compare the server's answers with plain PyTorch's for these contents."""
    checkpoint, *base = made_of
    network = tiny_network.TinyNetwork(2)
    network.load_state_dict(torch.load(io.BytesIO(checkpoint), weights_only=True))
    files: list[Any] = [*map(io.BytesIO, base), *queries]
    with torch.inference_mode():
        embeddings = F.normalize(network.eval()(reference.images(files, tiny_network.IMAGE_SIZE))[0])
    similarities = embeddings[len(base) :] @ embeddings[: len(base)].T
    with Classify(url) as classify:
        results, status = classify(list(queries))
    tally.sent += len(queries)
    if status != 200:
        tally.lost += len(queries)
        tally.notes.append(f"{status}: {results}")
        return
    for entry, row in zip(results, similarities, strict=True):
        # All base images match, equally many of each class, so the nearest one decides.
        label = _CLASSES[int(row.argmax()) // _IMAGES]
        right = is_right(entry, (label, float(row.max())))
        tally.right += right
        tally.wrong += not right
