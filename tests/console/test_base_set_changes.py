"""The base set over HTTP: a real console, real commands, and a repository of a tiny network."""

from __future__ import annotations

import html
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from inference_server.base_set.command import main as base_set_main
from tests.base_set.conftest import Living, make_living
from tests.console.running import Answer, RunningConsole, running_console
from tests.once import make_once
from tests.resources import write_faces
from tests.watched import watched_server

pytestmark = pytest.mark.slow

NOWHERE = "http://127.0.0.1:9"  # no server: the base set needs none
HTML = {"Accept": "text/html,application/xhtml+xml"}
ASYNC = {"Prefer": "respond-async"}
TOKENS = {"reader": "r" * 40, "changer": "c" * 40}
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'


@dataclass(frozen=True, kw_only=True)
class Board:
    """A console, and the repository that it changes."""

    console: RunningConsole
    living: Living
    temporary: Path

    def ask(self, method: str, path: str, status: int = 200, **request: Any) -> Answer:
        answer = self.console.ask(method, path, **request)
        assert answer.status == status, answer.text
        return answer

    def state(self) -> dict[str, Any]:
        return self.ask("GET", "/base-set").json

    def image(self, index: int) -> bytes:
        """Return one of the real images, which the base set does not hold."""
        (file,) = write_faces(self.living.folder / "images", [index], "image")
        return file.read_bytes()

    def end(self, operation: str) -> dict[str, Any]:
        """Wait for an operation's end."""
        while (values := self.ask("GET", f"/operations/{operation}").json)["state"] in ("waiting", "running"):
            time.sleep(0.05)
        return values

    def check(self, name: str, index: int, class_name: str = "face", **fields: str) -> str:
        """Check an addition in a browser's way, and return the operation, which has ended."""
        fields = {"class": class_name, **fields}
        answer = self.ask("POST", "/base-set/check", 303, headers=HTML, files={name: self.image(index)}, fields=fields)
        operation = answer.headers["location"].rpartition("/")[2]
        self.end(operation)
        return operation


def arguments(living: Living) -> tuple[str, ...]:
    return ("-ip", NOWHERE, "-data", str(living.base), "--model_repository", str(living.repository),
            "--cache", str(living.cache))  # fmt: skip


def _page(board: Board, path: str) -> str:
    return board.ask("GET", path, headers=HTML).text


@pytest.fixture(scope="module")
def board(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    folder = tmp_path_factory.mktemp("board")
    living = Living(folder=Path(shutil.copytree(make_once(shared / "living", make_living), folder / "living")))
    write_faces(living.folder / "queries" / "face", [10, 11, 12], "q")
    write_faces(living.folder / "queries" / "other", [110, 111], "q")
    temporary = folder / "temporary"
    temporary.mkdir()
    given = (*arguments(living), "--queries", str(living.folder / "queries"))
    with running_console(folder / "log", *given, environment={"TMPDIR": str(temporary)}) as console:
        yield Board(console=console, living=living, temporary=temporary)
    assert list(temporary.iterdir()) == []


def test_base_set_is_what_the_command_lists_and_what_is_doubtful(board: Board) -> None:
    found, listed = board.state(), board.living.ask("list", images=False)
    doubtful, changeable = found.pop("doubtful"), found.pop("changeable")
    del found["unchangeable_because"], listed["repository"]
    assert found == listed
    assert changeable is True
    assert all(entry["image"] in found["images"] for entry in doubtful)


def test_images_are_added_removed_and_rolled_back_over_rest(board: Board) -> None:
    before = board.state()
    added = board.ask("POST", "/base-set/face", files={"one.png": board.image(20), "two.png": board.image(21)}).json
    assert added["added"] == ["face/one.png", "face/two.png"]
    assert (board.living.base / "face" / "one.png").read_bytes() == board.image(20)
    now = board.state()
    assert (now["version"], now["base_images"]["face"]) == (added["version"], before["base_images"]["face"] + 2)
    assert now["changes"][0]["added"] == added["added"]
    assert board.ask("GET", f"/operations/{added['operation']}").json["state"] == "done"
    removed = board.ask("DELETE", "/base-set/face/one.png").json
    assert removed["removed"] == ["face/one.png"]
    assert not (board.living.base / "face" / "one.png").exists()
    assert "no base image face/one.png" in board.ask("DELETE", "/base-set/face/one.png", 404).json["detail"]
    back = board.ask("POST", "/base-set/rollback").json
    assert (back["version"], back["version_before"]) == (added["version"], removed["version"])
    page = _page(board, f"/operations/{back['operation']}")
    assert f"Version {back['version']} takes the place" in page
    assert "the next change follows the folder" in page
    assert "face/one.png" in board.state()["images"]


def test_check_tells_the_consequences_and_its_files_can_be_taken(board: Board) -> None:
    before = board.state()
    wrong = (board.living.base / "other" / "x101.png").read_bytes()
    checked = board.ask("POST", "/base-set/check", files={"wrong.png": wrong}, fields={"class": "face"}).json
    assert checked["added"] == ["face/wrong.png"]
    assert ["face/wrong.png", "other/x101.png"] in [sorted(pair["images"]) for pair in checked["label_conflicts"]]
    assert checked["queries"]["compared"] == 5
    (asked,) = checked["new_images"]
    page = _page(board, f"/operations/{checked['operation']}")
    said = "would still be answered other" if asked["after"]["label"] == "other" else "would get the label of its class"
    assert said in page
    assert str(board.temporary) not in str(checked)
    assert board.state() == before
    assert not (board.living.base / "face" / "wrong.png").exists()
    fields = {"checked": checked["operation"]}
    assert "another class" in board.ask("POST", "/base-set/other", 409, fields=fields).json["detail"]
    assert board.ask("POST", "/base-set/face", fields=fields).json["added"] == ["face/wrong.png"]
    assert (board.living.base / "face" / "wrong.png").read_bytes() == wrong
    assert not list(board.temporary.glob("*/*/files"))


def test_person_checks_confirms_and_finds_the_way_back(board: Board) -> None:
    operation = board.check("x001.png", 22, rename="true")
    page = board.ask("GET", f"/operations/{operation}", headers=HTML).text
    assert "Nothing has changed yet" in page
    assert "Add 1 image to face" in page
    thumbnail = board.ask("GET", f"/operations/{operation}/thumbnail?name=face/x001-2.png")
    assert thumbnail.headers["content-type"] == "image/webp"
    confirmed = [board.ask("POST", f"/operations/{operation}/confirm", 303, headers=HTML) for _ in range(2)]
    assert confirmed[0].headers["location"] == confirmed[1].headers["location"]  # a double click is one change
    change = confirmed[0].headers["location"].rpartition("/")[2]
    while "data-poll" in (page := board.ask("GET", f"/operations/{change}", headers=HTML).text):
        time.sleep(0.05)  # as a person does who reloads the page
    assert "The way back" in page
    assert "face/x001-2.png" in board.state()["images"]
    page = board.ask("GET", f"/operations/{operation}", headers=HTML).text
    assert "see what became of it" in page
    assert "/confirm" not in page


def test_check_that_is_dropped_leaves_no_file_and_can_not_be_confirmed(board: Board) -> None:
    operation = board.check("dropped.png", 23)
    assert list(board.temporary.glob("*/*/files/dropped.png"))
    board.ask("POST", f"/operations/{operation}/cancel", 303, headers=HTML)
    assert not list(board.temporary.glob("*/*"))
    assert "no such operation" in board.ask("POST", f"/operations/{operation}/confirm", 404).json["detail"]
    sent: dict[str, Any] = {"files": {"dropped.png": board.image(23)}, "fields": {"class": "face"}}
    operation = board.ask("POST", "/base-set/check", 202, headers=ASYNC, **sent).json["id"]
    assert board.ask("DELETE", f"/operations/{operation}", 204).body == b""
    assert "no such operation" in board.ask("GET", f"/operations/{operation}", 404).json["detail"]


def test_two_people_at_once_get_both_their_changes(board: Board) -> None:
    def add(index: int) -> Answer:
        return board.console.ask("POST", "/base-set/other", files={f"n{index}.png": board.image(index)})

    checked = board.check("n152.png", 152, class_name="other")
    outdated = "The base set has changed since this check"
    assert outdated not in _page(board, f"/operations/{checked}")
    with ThreadPoolExecutor(2) as people:
        answers = list(people.map(add, (150, 151)))
    assert [answer.status for answer in answers] == [200, 200]
    assert {"other/n150.png", "other/n151.png"} <= {*board.state()["images"]}
    assert outdated in _page(board, f"/operations/{checked}")


def test_answer_does_not_wait_if_the_client_prefers_so(board: Board) -> None:
    before = board.state()
    names = ["face/x001.png", "other/x101.png"]
    answer = board.ask("POST", "/base-set/check", 202, headers=ASYNC, fields={"remove": names})
    assert answer.headers["location"] == f"../operations/{answer.json['id']}"
    assert answer.json["state"] in ("waiting", "running")
    assert board.end(answer.json["id"])["result"]["removed"] == names
    assert board.state() == before


def test_forgetting_asks_for_the_name_and_leaves_nothing_in_the_console(board: Board) -> None:
    name = "Anna.png"
    added = board.ask("POST", "/base-set/face", files={name: board.image(24)}).json["operation"]
    board.ask("GET", f"/thumbnails/face/{name}")
    for path in (f"/base-set/face/{name}?forget=true", f"/base-set/face/{name}?forget=true&confirm=face/anna.png"):
        assert f"give face/{name} as confirm" in board.ask("DELETE", path, 400).json["detail"]
    page = board.ask("GET", f"/chosen-images/forget?image=face/{name}", headers=HTML).text
    assert f"<strong>face/{name}</strong>" in page
    assert "face/Anna.png" in board.state()["images"]
    forgotten = board.ask("DELETE", f"/base-set/face/{name}?forget=true&confirm=face/{name}").json
    assert (forgotten["images"], forgotten["remaining"]) == ([f"face/{name}"], [])
    assert "Where it looked" in _page(board, f"/operations/{forgotten['operation']}")
    assert f"face/{name}" not in board.state()["images"]
    board.ask("GET", f"/operations/{added}", 404)
    board.ask("GET", f"/thumbnails/face/{name}", 404)


def test_chosen_images_are_checked_or_forgotten_together(board: Board) -> None:
    chosen = ["other/x101.png", "other/x102.png"]
    fields: dict[str, Any] = {"remove": chosen, "action": "remove"}
    answer = board.ask("POST", "/chosen-images/remove", 303, headers=HTML, fields=fields)
    operation = answer.headers["location"].rpartition("/")[2]
    assert board.end(operation)["result"]["removed"] == chosen
    assert "Remove 2 images" in _page(board, f"/operations/{operation}")
    answer = board.ask("POST", "/chosen-images/remove", 303, headers=HTML, fields=fields | {"action": "forget"})
    assert answer.headers["location"] == "../chosen-images/forget?image=other%2Fx101.png&image=other%2Fx102.png"
    page = _page(board, answer.headers["location"].removeprefix(".."))
    assert "<strong>forget 2 images</strong>" in page
    fields = {"image": chosen, "confirm": "forget 3 images"}
    page = board.ask("POST", "/chosen-images/forget", 400, headers=HTML, fields=fields).text
    assert "type exactly: forget 2 images. Nothing has changed." in page
    for path, values in (("remove", {"action": "remove"}), ("forget", {"confirm": "forget 0 images"})):
        assert "No image was chosen" in board.ask("POST", f"/chosen-images/{path}", 400, fields=values).json["detail"]


def test_examples_of_what_is_unknown_are_a_new_class(board: Board) -> None:
    done = CliRunner().invoke(
        base_set_main, ["set", "--unknown_label", "unknown", "--model_repository", str(board.living.repository)]
    )
    assert done.exit_code == 0, done.output
    assert 'value="unknown"' in _page(board, "/base-set")  # which the form for a new class proposes
    operation = board.check("wall.png", 171, class_name="", new_class="unknown")
    assert board.end(operation)["result"]["base_images_after"]["unknown"] == 1
    assert "the first of its class" in _page(board, f"/operations/{operation}")
    board.ask("POST", "/base-set/unknown", fields={"checked": operation})
    assert "examples of what is unknown" in _page(board, "/base-set")


def test_examples_on_the_page_of_the_api_change_nothing_when_they_are_run_as_they_are(board: Board) -> None:
    """A class may be called almost anything, so the place of a name must hold none."""
    examples = re.findall(r"<code>(curl .*?)</code>", _page(board, "/docs"), re.DOTALL)
    paths = [html.unescape(example).rpartition(board.console.url)[2].rstrip("'") for example in examples]
    assert {"/base-set/...", "/base-set/.../..."} <= {*paths}
    assert not [path for path in paths if "{" in path]
    image = {"a.jpg": board.image(26)}
    board.ask("POST", "/base-set/...", 400, files=image)
    board.ask("POST", "/base-set/check", 400, files=image, fields={"class": "..."})
    board.ask("DELETE", "/base-set/.../...", 400)


def test_refusal_of_the_command_is_a_conflict_and_a_page(board: Board) -> None:
    (board.living.base / "other" / "broken.png").write_text("no image")
    answer = board.ask("DELETE", "/base-set/other/x102.png", 409)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "do not decode" in answer.json["detail"]
    page = _page(board, f"/operations/{answer.json['operation']}")
    assert "Refused" in page
    assert "do not decode" in page
    assert (board.living.base / "other" / "x102.png").exists()
    (board.living.base / "other" / "broken.png").unlink()


def test_what_is_no_image_is_found_by_the_check_and_refused_as_an_addition(board: Board) -> None:
    files = {"drawing.png": SVG}
    checked = board.ask("POST", "/base-set/check", files=files, fields={"class": "face"}).json
    assert list(checked["undecodable"]) == ["face/drawing.png"]
    page = board.ask("GET", f"/operations/{checked['operation']}", headers=HTML).text
    assert "do not decode can&#39;t be added" in page or "do not decode can't be added" in page
    assert "/confirm" not in page
    detail = board.ask("POST", "/base-set/face", 409, files=files).json["detail"]
    assert "do not decode" in detail
    assert str(board.temporary) not in detail
    assert not (board.living.base / "face" / "drawing.png").exists()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", "/base-set/../x001.png", 400),
        ("DELETE", "/base-set/face/..", 400),
        ("DELETE", "/base-set/face/..%2fother%2fx101.png", 404),
        ("DELETE", "/base-set/%2e%2e/x001.png", 400),
        ("DELETE", "/base-set/face/.hidden", 400),
        ("DELETE", "/base-set/face/a%00.png", 400),
        ("DELETE", "/base-set/face/%ff.png", 404),
        ("GET", "/thumbnails/../base.png", 400),
        ("GET", "/thumbnails/face/..%2f..%2ftrained%2flabels", 404),
        ("GET", "/thumbnails/%2e%2e/trained", 400),
    ],
)
def test_path_in_a_name_is_refused(board: Board, method: str, path: str, status: int) -> None:
    board.ask(method, path, status)


@pytest.mark.parametrize("name", ["../face", "/tmp/face", "fa/ce", "..", ".face", ""])
def test_path_in_a_class_name_is_refused(board: Board, name: str) -> None:
    kept = list(board.temporary.glob("*/*"))
    board.ask("POST", "/base-set/check", 400, files={"a.png": board.image(30)}, fields={"class": name})
    assert list(board.temporary.glob("*/*")) == kept


def test_rename_is_true_or_false(board: Board) -> None:
    fields = {"class": "face", "rename": "yes"}
    refused = board.ask("POST", "/base-set/check", 400, files={"a.png": board.image(24)}, fields=fields)
    assert "Give true or false" in refused.json["detail"]


def test_taken_name_is_refused(board: Board) -> None:
    files, fields = {"x001.png": board.image(31)}, {"class": "face"}
    assert "Rename the file" in board.ask("POST", "/base-set/check", 409, files=files, fields=fields).json["detail"]


def test_names_with_markup_are_text_on_every_page(board: Board) -> None:
    class_name, name = '<b>cats & "dogs"', "<img src=x onerror=alert(1)>.png"
    (board.living.base / class_name).mkdir()
    (board.living.base / class_name / name).write_bytes(board.image(32))
    fields = {"class": class_name}
    checked = board.ask("POST", "/base-set/check", files={"y.png": board.image(33)}, fields=fields).json
    added = board.ask("POST", "/base-set/face", files={"z.png": board.image(34)}).json
    assert f"{class_name}/{name}" in board.state()["images"]
    paths = [f"/operations/{checked['operation']}", f"/operations/{added['operation']}", "/base-set"]
    paths += [
        html.unescape(found[1:])
        for found in re.findall(r'href="(\./base-set\?class=[^"]*)"', _page(board, "/base-set"))
    ]
    pages = [_page(board, path) for path in paths]
    for path, page in zip(paths, pages, strict=True):
        assert "<b>" not in page, path
        assert "<img src=x" not in page, path
    assert sum("&lt;img src=x onerror=alert(1)&gt;.png" in page for page in pages) >= 3
    (source,) = {*re.findall(r'src="\.(/thumbnails/[^"]*onerror[^"]*)"', "".join(pages))}
    assert board.ask("GET", html.unescape(source)).headers["content-type"] == "image/webp"
    shutil.rmtree(board.living.base / class_name)


def test_thumbnail_is_sent_once(board: Board) -> None:
    answer = board.ask("GET", "/thumbnails/face/x002.png")
    assert answer.headers["content-type"] == "image/webp"
    again = board.ask("GET", "/thumbnails/face/x002.png", 304, headers={"If-None-Match": answer.headers["etag"]})
    assert again.body == b""
    board.ask("GET", "/thumbnails/face/none.png", 404)


def test_those_who_may_only_classify_look_and_change_nothing(board: Board, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"reader classify {TOKENS['reader']}\nchanger change {TOKENS['changer']}\n")
    tokens.chmod(0o600)
    before = board.state()
    with running_console(tmp_path / "log", *arguments(board.living), "--token_file", str(tokens)) as console:
        reader, changer = ({"Authorization": f"Bearer {token}"} for token in TOKENS.values())
        files, fields = {"a.png": board.image(35)}, {"class": "face"}
        begun = console.ask("POST", "/base-set/check", headers=changer, files=files, fields=fields).json["operation"]
        for path in ("/base-set", "/thumbnails/face/x001.png", f"/operations/{begun}"):
            assert console.ask("GET", path).status == 401
            assert console.ask("GET", path, headers=reader).status == 200
        for method, path in (
            ("POST", "/base-set/check"), ("POST", "/base-set/face"), ("POST", "/base-set/rollback"),
            ("POST", "/chosen-images/remove"), ("POST", "/chosen-images/forget"),
            ("POST", f"/operations/{begun}/confirm"), ("POST", f"/operations/{begun}/cancel"),
            ("DELETE", f"/operations/{begun}"), ("DELETE", "/base-set/face/x001.png"),
            ("DELETE", "/base-set/face/x001.png?forget=true&confirm=face/x001.png"),
        ):  # fmt: skip
            sent: dict[str, Any] = {"files": files, "fields": fields} if method == "POST" else {}
            assert console.ask(method, path, **sent).status == 401, path
            assert console.ask(method, path, headers=reader, **sent).status == 403, path
        page = console.ask("GET", "/base-set", headers=reader | HTML).text
        assert "reader may classify, but not change the base set" in page
        assert "<form" not in page
        assert console.ask("GET", "/base-set", headers=reader).json["changeable"] is False
        assert str(board.living.base) in console.ask("GET", "/status", headers=changer | HTML).text
        assert str(board.living.folder) not in console.ask("GET", "/status", headers=reader | HTML).text
        page = console.ask("GET", f"/operations/{begun}", headers=reader | HTML).text
        assert "by changer" in page
        assert "<form" not in page
    assert board.state() == before


@pytest.mark.parametrize(
    ("left_out", "more", "words"),
    [
        ("", ["--read_only"], "This console is read-only"),
        ("-data", [], "no folder of reference images"),
        ("--model_repository", ["--model_repository", "/nowhere"], "There is no export in /nowhere"),
    ],
    ids=["read-only", "no folder", "no repository"],
)
def test_console_that_can_not_change_says_why(
    board: Board, tmp_path: Path, left_out: str, more: list[str], words: str
) -> None:
    given = list(arguments(board.living))
    if left_out:
        place = given.index(left_out)
        del given[place : place + 2]
    with running_console(tmp_path / "log", *given, *more) as console:
        page = console.ask("GET", "/base-set", headers=HTML)
        assert words in page.text
        assert "<form" not in page.text
        status = console.ask("POST", "/base-set/rollback").status
        assert status == (403 if "--read_only" in more else 409)
        sent: dict[str, Any] = {"files": {"a.png": board.image(36)}, "fields": {"class": "face"}}
        assert console.ask("POST", "/base-set/check", **sent).status == status


def test_change_is_answered_with_by_the_running_server_at_once(living: Living, tmp_path: Path) -> None:
    (image,) = write_faces(tmp_path, [60], "new")
    files = {image.name: image.read_bytes()}
    with watched_server("--model_repository", living.repository, log=tmp_path / "server") as server:
        given = ("-ip", server.url, *arguments(living)[2:])
        with running_console(tmp_path / "log", *given) as console:
            added = console.ask("POST", "/base-set/other", files=files).json
            assert added["servers"] == [server.port]
            (entry,) = console.ask("POST", "/classify?details=true", files=files).json
            assert (entry["Version"], entry["Neighbors"][0]["Image"]) == (added["version"], f"other/{image.name}")
            console.ask("POST", "/base-set/rollback")
            (entry,) = console.ask("POST", "/classify?details=true", files=files).json
            assert entry["Version"] == added["version_before"]


def test_killed_console_leaves_no_child_and_its_files_go_at_the_next_start(board: Board, tmp_path: Path) -> None:
    temporary = {"TMPDIR": str(tmp_path)}
    with running_console(tmp_path / "log", *arguments(board.living), environment=temporary) as console:
        sent: dict[str, Any] = {"files": {"secret.png": board.image(37)}, "fields": {"class": "face"}}
        assert console.ask("POST", "/base-set/check", headers=ASYNC, **sent).status == 202
        children: list[psutil.Process] = []
        while not children:
            children = psutil.Process(console.process.pid).children(recursive=True)
        os.kill(console.process.pid, signal.SIGKILL)
        psutil.wait_procs(children, timeout=60)
        assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    assert list(tmp_path.glob("*/*/files/secret.png"))
    with running_console(tmp_path / "log", *arguments(board.living), environment=temporary):
        assert not list(tmp_path.glob("*/*/files/secret.png"))
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
