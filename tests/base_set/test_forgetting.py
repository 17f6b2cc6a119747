"""Images that are removed for good: where they were, what stays, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from click.testing import CliRunner

from inference_client import Classify
from inference_export.command import main as export_main
from inference_export.repository.versions import exported_version
from inference_server.base_set.traces import Traces
from inference_server.base_set.withdrawn_files import HIDDEN_FOLDER
from inference_server.supervision.shared_memory import FOLDER
from inference_server.triton.access import access_file
from tests import tiny_network
from tests.base_set.conftest import Living
from tests.base_set.searching import find_bytes
from tests.chaos.crashes import shared_memory_prefix
from tests.chaos.load import Load, expected_answers
from tests.chaos.tally import Tally
from tests.resources import write_faces
from tests.watched import WatchedServer, watched_server

pytestmark = pytest.mark.slow

IMAGE = "face/x001.png"
Contents = Callable[[Path], dict[str, bytes]]


def _export(living: Living, *arguments: object) -> None:
    given = ["-r", living.folder / "trained", "--network", tiny_network.NETWORK, "-data", living.base,
             "--model_repository", living.repository, "--cache", living.cache, *arguments]  # fmt: skip
    done = CliRunner().invoke(export_main, list(map(str, given)), catch_exceptions=False)
    assert done.exit_code == 0, done.output


def _row(living: Living, version: int, name: str = IMAGE) -> bytes:
    names = (living.head(version) / "base_images.txt").read_text().splitlines()
    row: bytes = np.load(living.head(version) / "base_embeddings.npy")[names.index(name)].tobytes()
    return row


def _places(living: Living) -> list[Path]:
    parent = living.repository.parent
    return [living.repository, parent / "model_repository.previous", living.cache, living.base,
            living.folder / "base.removed", *parent.glob(".model_repository*")]  # fmt: skip


def _needles(image: Path, **more: bytes) -> dict[str, bytes]:
    content = hashlib.sha256(image.read_bytes())
    name = f"{image.parent.name}/{image.name}"
    return {"name": name.encode(), "hash": content.digest(), "hex": content.hexdigest().encode(), **more}


def _raw_embedding(url: str, image: Path) -> bytes:
    """The embedding as the server computes it, which is not L2-normalized."""
    with closing(triton.InferenceServerClient(url.removeprefix("http://"))) as client:
        sent = triton.InferInput("IMAGE", [1, 1], "BYTES")
        sent.set_data_from_numpy(np.array([[image.read_bytes()]], object))
        raw: bytes = client.infer("ensemble", [sent]).as_numpy("EMBEDDING")[0].tobytes()
        return raw


def _regions(server: WatchedServer) -> list[Path]:
    return list(FOLDER.glob(f"{shared_memory_prefix(server.tritonserver())}*"))


@contextmanager
def _left_in_free_pages_and_wal(living: Living, embedding: bytes) -> Iterator[None]:
    """Have the cache's database hold an embedding in pages that are free, and in a write-ahead log that is in use."""
    (database,) = living.cache.glob("*.sqlite")
    with closing(sqlite3.connect(database)) as connection:
        keys = [(bytes([number]) * 32, embedding) for number in range(200)]
        with connection:
            connection.executemany("INSERT INTO embeddings VALUES (?, ?)", keys)
        with connection:
            connection.executemany("DELETE FROM embeddings WHERE content = ?", [key[:1] for key in keys])
        connection.execute("PRAGMA journal_mode = WAL")
        with connection:
            connection.execute("INSERT INTO embeddings VALUES (?, ?)", (b"other", embedding))
        assert embedding in database.with_name(f"{database.name}-wal").read_bytes()
        yield


def test_nothing_is_left_of_a_forgotten_image_and_no_request_fails(living: Living) -> None:
    image = living.base / IMAGE
    content = image.read_bytes()
    _export(living, "--max_batch_size", 8)  # another shape: what was exported before is kept as *.previous
    living.ask("set", "-thres", 0.8, images=False)
    living.ask("set", "-thres", 0.75, images=False)
    shutil.copytree(living.head(3), living.folder / ".model_repository.staging-killed" / "cluster_head")
    (living.cache / "folder.json").write_text(json.dumps({IMAGE: hashlib.sha256(content).hexdigest()}))
    (living.folder / "base" / "face" / f".{image.name}.new").write_bytes(content[:100])
    queries = write_faces(living.folder / "queries", range(10, 16), "q")
    row = _row(living, 3)
    with (
        _left_in_free_pages_and_wal(living, row),
        watched_server("--model_repository", living.repository, log=living.folder / "log") as server,
    ):
        with Classify(server.url, details=True) as classify:
            for _ in range(8):  # all processes of preprocess get it
                (entry,), _ = classify(image)
        assert entry["Neighbors"][0]["Image"] == IMAGE
        needles = _needles(image, row=row, raw=_raw_embedding(server.url, image), start=content[:64])
        stored, shared = find_bytes(_places(living), needles), find_bytes(_regions(server), needles)
        assert stored.keys() == {"name", "hash", "hex", "row", "start"}
        assert {Path(file).parent.name for file in stored["row"]} == {"1", "2", "3", "cache", "cluster_head"}
        assert {"name", "raw", "start"} <= shared.keys()
        tally = Tally(what="forget")
        with Load(server.url, [expected_answers(server.url, queries)], tally) as load:
            found = living.ask("forget", IMAGE)
            load.expected.append(expected_answers(server.url, queries))
        assert tally.kept, tally
        places = [*_places(living), *_regions(server), access_file(server.port)]
        assert find_bytes(places, needles) == {}
        assert (found["version_before"], found["version"], found["servers"]) == (3, 4, [server.port])
        assert found["remaining"] == []
        looked = {each["file"]: (each["found"], each["done"]) for each in found["looked_at"]}
        for file in (file for files in stored.values() for file in files):
            assert looked[file][0], file
            assert looked[file][1], file
        # The load writes over what was there, so the command may have found nothing any more.
        assert {looked[file][1] for files in shared.values() for file in files} == {"replaced"}
        assert {str(region) for region in _regions(server) if not region.name.endswith("_lock")} <= looked.keys()
        assert living.run("rollback", images=False).exit_code == 1
        with Classify(server.url, details=True) as classify:
            (entry,), _ = classify(content)
        assert entry["Version"] == 4
        assert IMAGE not in [neighbor["Image"] for neighbor in entry["Neighbors"]]
        assert "replaced in" not in server.said()
