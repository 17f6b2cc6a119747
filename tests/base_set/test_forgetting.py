"""Images that are removed for good: where they were, what stays, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from click.testing import CliRunner
from PIL import Image

from inference_client import Classify
from inference_export.command import main as export_main
from inference_export.repository.locks import hold_version
from inference_export.repository.staging import staging
from inference_export.repository.versions import exported_version
from inference_server.base_set.command import main
from inference_server.base_set.forgetting import forgetting
from inference_server.base_set.forgetting.traces import Traces
from inference_server.base_set.forgetting.withdrawn_files import HIDDEN_FOLDER
from inference_server.supervision.shared_memory import FOLDER
from inference_server.triton.access import access_file
from tests import tiny_network
from tests.base_set.conftest import Living
from tests.base_set.searching import find_bytes
from tests.chaos.crashes import shared_memory_prefix
from tests.chaos.forgetting import Withdrawal, kill_without_server
from tests.chaos.load import Load, expected_answers
from tests.chaos.tally import Tally
from tests.resources import write_faces
from tests.watched import WatchedServer, watched_server

pytestmark = pytest.mark.slow

IMAGE = "face/x001.png"
Contents = Callable[[Path], dict[str, bytes]]


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
        connection.execute("PRAGMA secure_delete = OFF")
        keys = [(bytes([number]) * 32, embedding) for number in range(200)]
        with connection:
            connection.executemany("INSERT INTO embeddings VALUES (?, ?)", keys)
        with connection:
            connection.executemany("DELETE FROM embeddings WHERE content = ?", [key[:1] for key in keys])
        assert database.read_bytes().count(embedding) > 1
        connection.execute("PRAGMA journal_mode = WAL")
        with connection:
            connection.execute("INSERT INTO embeddings VALUES (?, ?)", (b"other", embedding))
        assert embedding in database.with_name(f"{database.name}-wal").read_bytes()
        yield


def test_nothing_is_left_of_a_forgotten_image_and_no_request_fails(living: Living, contents: Contents) -> None:
    image = living.base / IMAGE
    content = image.read_bytes()
    living.export("--max_batch_size", 8)  # another shape: what was exported before is kept as *.previous
    living.ask("set", "-thres", 0.8, images=False)
    living.ask("set", "-thres", 0.75, images=False)
    shutil.copytree(living.head(3), living.folder / ".model_repository.staging-killed" / "cluster_head")
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
        assert stored.keys() == {"name", "hash", "row", "start"}
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
        databases = [file for file in stored["row"] if ".sqlite" in file]
        assert [looked[file] for file in databases] == [(["embedding", "content hash"], "rewritten without it")] * 2
        # The load writes over what was there, so the command may have found nothing any more.
        assert {looked[file][1] for files in shared.values() for file in files} == {"replaced"}
        assert {str(region) for region in _regions(server) if not region.name.endswith("_lock")} <= looked.keys()
        assert living.run("rollback", images=False).exit_code == 1
        with Classify(server.url, details=True) as classify:
            (entry,), _ = classify(content)
        assert entry["Version"] == 4
        assert IMAGE not in [neighbor["Image"] for neighbor in entry["Neighbors"]]
        assert "replaced in" not in server.said()
        living.export("--max_batch_size", 16)  # which the running server can't change to
        before = contents(living.folder)
        done = living.run("forget", "face/x002.png")
        assert (done.exit_code, "Restart inference-server" in done.stderr) == (1, True)
        after = contents(living.folder)
        del before["log"], after["log"]
        assert after == before


def test_image_that_was_removed_before_goes_from_the_removed_ones_and_from_older_versions(living: Living) -> None:
    needles = _needles(living.base / IMAGE, row=_row(living, 1))
    living.ask("remove", IMAGE)
    assert find_bytes(_places(living), needles).keys() == {"name", "hash", "row"}
    found = living.ask("forget", IMAGE)
    assert (found["version_before"], found["version"]) == (2, 2)
    assert find_bytes(_places(living), needles) == {}
    assert not living.head(1).exists()
    assert living.run("rollback", images=False).exit_code == 1
    assert living.ask("sync")["version"] == 2


def test_image_that_only_an_older_version_holds_goes_with_that_version_and_its_network(living: Living) -> None:
    needles = _needles(living.base / IMAGE, row=_row(living, 1))
    (living.base / IMAGE).unlink()
    shutil.rmtree(living.folder / "trained")
    tiny_network.write_tiny_resources(living.folder / "trained", seed=1)
    living.export()
    served = living.repository / "classifier" / "2"
    del needles["hash"], needles["hex"]  # nobody knows them any more
    living.ask("forget", IMAGE)
    assert find_bytes(_places(living), needles) == {}
    assert [folder.name for folder in (living.repository / "classifier").glob("[0-9]*")] == [served.name]
    assert exported_version(living.repository) == (2, 2)


def test_version_that_holds_the_image_under_another_name_goes(living: Living) -> None:
    needles = _needles(living.base / IMAGE, row=_row(living, 1))
    (living.base / IMAGE).rename(living.base / "face" / "renamed.png")
    living.ask("sync")
    living.ask("forget", "face/renamed.png")
    assert not living.head(1).exists()
    assert find_bytes(_places(living), needles) == {}


def test_name_that_was_another_images_once_leaves_that_image_alone(living: Living) -> None:
    stays, row = living.base / "face" / "stays.png", _row(living, 1)
    (living.base / IMAGE).rename(stays)
    write_faces(living.base / "face", [60], "y")[0].rename(living.base / IMAGE)
    living.ask("sync")
    found = living.ask("forget", IMAGE)
    assert not living.head(1).exists()
    assert _row(living, found["version"], "face/stays.png") == row
    assert stays.exists()


def test_version_without_the_image_stays(living: Living) -> None:
    (image,) = write_faces(living.folder / "new", [60], "n")
    living.ask("add", "face", image)
    living.ask("rollback", images=False)
    found = living.ask("forget", "face/n060.png")
    assert (found["version_before"], found["version"]) == (1, 1)
    assert (living.head(1).exists(), living.head(2).exists()) == (True, False)
    assert not (living.base / "face" / "n060.png").exists()


@pytest.mark.parametrize("copies", [["face/copy.png", "other/copy.png"], ["copy.png"]], ids=["images", "stray"])
def test_copy_under_another_name_is_refused_and_named(living: Living, contents: Contents, copies: list[str]) -> None:
    for copy in copies:
        shutil.copy(living.base / IMAGE, living.base / copy)
    before = contents(living.folder)
    done = living.run("forget", IMAGE)
    assert done.exit_code == 1
    assert all(str(living.base / copy) in done.stderr for copy in copies)
    assert contents(living.folder) == before
    if "face/copy.png" in copies:
        needles = _needles(living.base / IMAGE, row=_row(living, 1))
        living.ask("forget", IMAGE, *copies)
        assert find_bytes(_places(living), needles) == {}


def test_copy_with_other_bytes_and_the_same_embedding_is_refused_and_named(living: Living, contents: Contents) -> None:
    with Image.open(living.base / IMAGE) as image:
        image.save(living.base / "other" / "copy.png", compress_level=1)
    living.ask("sync")
    before = contents(living.folder)
    done = living.run("forget", IMAGE)
    assert done.exit_code == 1
    assert "other/copy.png" in done.stderr
    assert contents(living.folder) == before
    living.ask("forget", IMAGE, "other/copy.png")


def test_image_that_is_nowhere_is_refused_with_every_place_named(living: Living, contents: Contents) -> None:
    before = contents(living.folder)
    for names in (["face/x01.png"], [IMAGE, "face/x0011.png"], ["x001.png"], ["face/.x001.png"], ["../base/face"]):
        done = living.run("forget", *names)
        assert done.exit_code == 1, names
    done = living.run("forget", IMAGE, "face/x01.png")
    assert "nothing is known of face/x01.png" in done.stderr
    for place in (living.base, living.folder / "base.removed", living.repository, living.cache):
        assert str(place) in done.stderr
    done = CliRunner().invoke(main, ["forget", IMAGE, "-data", str(living.folder / "bse"), "--model_repository",
                                     str(living.repository), "--cache", str(living.cache)])  # fmt: skip
    assert (done.exit_code, "is not a folder" in done.stderr) == (1, True)
    assert contents(living.folder) == before


def test_class_goes_with_its_last_image_and_the_last_base_image_is_refused(living: Living, contents: Contents) -> None:
    living.ask("set", "--unknown_label", "unknown", images=False)
    others = [f"other/{file.name}" for file in (living.base / "other").iterdir()]
    (living.base / "other" / f".{Path(others[0]).name}.new").write_bytes(b"half")
    found = living.ask("forget", *others)
    assert not (living.base / "other").exists()
    assert living.ask("list", images=False)["base_images"] == {"face": 4}
    faces = [f"face/{file.name}" for file in (living.base / "face").iterdir()]
    before = contents(living.folder)
    done = living.run("forget", *faces[:3])
    assert (done.exit_code, "3 of 4 base images would go" in done.stderr) == (1, True)
    done = living.run("forget", *faces, "--yes")
    assert (done.exit_code, "--mode classification" in done.stderr) == (1, True)
    assert contents(living.folder) == before
    assert living.ask("forget", *faces[:3], "--yes")["version"] == found["version"] + 1


def test_repository_in_classification_mode_forgets_images_of_its_clustering_versions(living: Living) -> None:
    needles = _needles(living.base / IMAGE, row=_row(living, 1))
    arguments = ["-r", living.folder / "trained", "--network", tiny_network.NETWORK, "--mode", "classification",
                 "--model_repository", living.repository, "--cache", living.cache]  # fmt: skip
    assert CliRunner().invoke(export_main, list(map(str, arguments))).exit_code == 0
    found = living.ask("forget", IMAGE)
    assert (found["version_before"], found["version"]) == (2, 2)
    assert find_bytes(_places(living), needles) == {}
    assert exported_version(living.repository) == (2, 2)
    rest = [f"{file.parent.name}/{file.name}" for file in living.base.glob("*/*")]
    living.base.joinpath("note.txt").write_text("no image")
    assert living.run("forget", *rest).exit_code == 0
    assert [file.name for file in living.base.iterdir()] == ["note.txt"]


def test_refused_change_puts_the_image_back(living: Living, contents: Contents) -> None:
    (living.base / "other" / "broken.png").write_bytes(b"no image")
    before = contents(living.folder)
    done = living.run("forget", IMAGE)
    assert (done.exit_code, "do not decode" in done.stderr) == (1, True)
    assert contents(living.folder) == before
    assert not (living.base / HIDDEN_FOLDER).exists()
    assert living.run("forget", IMAGE, "--skip_unreadable").exit_code == 0


def test_cache_keeps_the_other_images_and_a_damaged_one_goes_but_no_file_of_the_user(living: Living) -> None:
    needles = _needles(living.base / IMAGE, row=_row(living, 1))
    (database,), (files_before,) = living.cache.glob("*.sqlite"), living.cache.glob("*.npy")
    damaged = living.cache / f"{'0' * 32}-{'0' * 64}.sqlite"
    damaged.write_bytes(database.read_bytes()[:4096] + needles["hash"] + b"damaged" * 1000)
    journal = living.cache / f"{'1' * 32}-{'1' * 64}.sqlite-journal"
    journal.write_bytes(needles["row"])
    own = [living.cache / "notes.csv", living.cache / "deeper" / database.name]
    own[1].parent.mkdir()
    for file in own:
        file.write_text(f"{IMAGE},x001.png\n")
    living.ask("forget", IMAGE)
    (files,) = living.cache.glob("*.npy")
    assert files != files_before
    assert sorted(file for file in living.cache.rglob("*") if file.is_file()) == sorted([database, files, *own])
    assert find_bytes([database, files], needles) == {}
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM embeddings").fetchone() == (6,)


def test_hash_of_an_image_whose_file_is_gone_is_found_by_its_embedding(living: Living) -> None:
    needles = _needles(living.base / IMAGE, row=_row(living, 1))
    living.ask("sync")
    (living.base / IMAGE).unlink()
    living.ask("sync")
    assert {"hash", "row"} <= find_bytes(_places(living), needles).keys()
    living.ask("forget", IMAGE)
    assert find_bytes(_places(living), needles) == {}


def test_what_remains_is_named_and_the_image_stays_hidden_until_it_is_gone(living: Living) -> None:
    own = living.repository / "notes.txt"
    own.write_text(f"good: {IMAGE}\n".replace(" ", "\t"))
    done = living.run("forget", IMAGE)
    assert (done.exit_code, f"{own}: name" in done.stderr) == (1, True)
    assert "still holding something" in done.stdout
    assert [file.name for file in (living.base / HIDDEN_FOLDER).rglob("*.png")] == ["x001.png"]
    own.unlink()
    assert living.run("forget", IMAGE).exit_code == 0
    assert not (living.base / HIDDEN_FOLDER).exists()


def test_command_that_prepares_a_version_or_a_server_that_holds_one_is_waited_for(
    living: Living, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "OTHERS_TIMEOUT_S", 0.3)
    living.ask("set", "-thres", 0.5, images=False)
    before = contents(living.folder)
    with staging(living.repository):
        done = living.run("forget", IMAGE)
    assert (done.exit_code, "another command is changing" in done.stderr) == (1, True)
    with hold_version(living.repository, 1):
        done = living.run("forget", IMAGE)
    assert (done.exit_code, "version 1 is being served" in done.stderr) == (1, True)
    assert contents(living.folder) == before
    assert living.run("forget", IMAGE).exit_code == 0


def test_text_and_json_list_every_file_and_what_is_out_of_reach(living: Living) -> None:
    shutil.copytree(living.folder, living.folder.with_name("copy"))
    text = living.run("forget", IMAGE).stdout
    found = Living(folder=living.folder.with_name("copy")).ask("forget", IMAGE)
    for each in found["looked_at"]:
        assert each["file"].replace("/copy/", "/living/") in text
    for words in ("backups", "evaluation reports", "access log", "clients", "object stores"):
        assert words in text
        assert any(words in each for each in found["out_of_reach"])


def test_command_killed_at_any_moment_is_run_again(living: Living) -> None:
    (image,) = write_faces(living.folder / "new", [60], "n")
    withdrawal = Withdrawal(
        repository=living.repository, data=living.base, cache=living.cache, image=image, class_name="face"
    )
    assert kill_without_server(withdrawal, times=4).kept
    assert living.ask("sync")["base_images"] == {"face": 4, "other": 3}


class _Killed(BaseException):
    """Ends the command where it stands."""


@pytest.mark.parametrize("step", ["serve_everywhere", "drop_base_sets", "_drop_previous", "_clean_cache", "_compare"])
def test_command_that_ended_before_a_step_is_run_again(
    living: Living, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def end(*_: object, **__: object) -> None:
        raise _Killed

    needles = _needles(living.base / IMAGE, row=_row(living, 1))
    with monkeypatch.context() as patched:
        patched.setattr(forgetting, step, end)
        with pytest.raises(_Killed):
            living.run("forget", IMAGE)
    done = living.run("forget", IMAGE)
    is_done = step == "_compare"  # which comes after everything
    assert (done.exit_code, "nothing is known of" in done.stderr) == (int(is_done), is_done), done.output
    assert find_bytes(_places(living), needles) == {}
    assert not (living.base / HIDDEN_FOLDER).exists()


def test_interrupted_command_says_that_something_may_be_left(living: Living, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "_drop_versions", interrupt)
        done = living.run("forget", IMAGE)
    assert (done.exit_code, "Run the command again" in done.stderr, "Aborted" in done.stderr) == (1, True, False)
    assert living.run("forget", IMAGE).exit_code == 0


def test_name_is_found_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    held = [b"face/1.jpg", b"a\nface/1.jpg\n", b'{"face/1.jpg": 1}', b"/data/face/1.jpg\0", b"\x0a\0\0\0face/1.jpgx",
            b"x" * (2**24 - 6) + b"\nface/1.jpg\n"]  # fmt: skip
    others = [b"face/11.jpg", b"surface/1.jpg", b"face/1.jpg.bak", b"my face/1.jpg", b"x" * 2**24 + b"face/1.jpg", b""]
    for content in (*held, *others):
        file.write_bytes(content)
        assert Traces(names=["face/1.jpg"]).find_in(file) == ["name"] * (content in held), content[-40:]
    file.write_text(json.dumps(["face/Zoë.jpg"]))
    assert Traces(names=["face/Zoë.jpg"]).find_in(file) == ["name"]
    names = tmp_path / "base_images.txt"
    names.write_text("a,face/1.jpg\n")
    assert Traces(names=["face/1.jpg"]).find_in(names) == []
    assert Traces(names=["a,face/1.jpg"], embeddings=[b"1.jp"], hashes=[b"\xab"]).find_in(names) == [
        "name",
        "embedding",
    ]
    names.write_text("AB")
    assert Traces(names=[], hashes=[b"\xab"]).find_in(names) == ["content hash"]
