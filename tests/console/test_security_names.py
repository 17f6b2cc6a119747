"""Names with markup, line breaks and paths in them; files that are no images."""

from __future__ import annotations

import html
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.console.running import RunningConsole
from tests.console.wire import HOST, exchange

pytestmark = pytest.mark.slow

HTML = {"Accept": "text/html"}
MARKUP = "<img src=x onerror=alert(1)>\"'&{{7*7}}.png"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(2)</script></svg>'
PAGE = b"<!doctype html><script>alert(3)</script>"


def test_markup_in_a_file_name_is_shown_as_text(console: RunningConsole, query_images: list[Path]) -> None:
    name = MARKUP.replace('"', "%22")  # as browsers write it
    answer = console.ask("POST", "/classify", headers=HTML, files={name: query_images[0].read_bytes()})
    assert answer.status == 200
    assert "<img src=x" not in answer.text
    assert "{{7*7}}" in html.unescape(answer.text)


def test_markup_in_a_parameter_is_shown_as_text(console: RunningConsole) -> None:
    for headers in (HTML, {}):
        answer = console.ask("POST", "/classify?sim_thres=%3Cscript%3E&details=%3Cb%3E", headers=headers, files={})
        assert answer.status == 400
        assert "<script>" not in answer.text.replace('<script src="', "")


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a\r\nSet-Cookie: b=c", "ä\u2028{{7*7}}"])
def test_name_in_a_path_comes_back_neither_as_markup_nor_as_a_header(console: RunningConsole, name: str) -> None:
    for headers in (HTML, {}):
        answer = console.ask("GET", f"/base-set/{quote(name)}/{quote(name)}", headers=headers)
        assert answer.status in {404, 405}
        assert "<script>alert" not in answer.text
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        b"/static/../settings.py",
        b"/static/%2e%2e/routing.py",
        b"/static/..%2frouting.py",
        b"/static/%252e%252e%252frouting.py",
        b"/static/..%5crouting.py",
        b"/static//etc/passwd",
        b"/static/%2fetc%2fpasswd",
        b"/static/console.css%00.png",
        b"/static/%ff%fe",
        b"//etc/passwd",
        b"/static/.",
        b"/static",
        b"/thumbnails/../../etc/passwd",
        b"/thumbnails/%2e%2e/passwd",
        b"/thumbnails/..%2f..%2f..%2fetc/passwd",
        b"/thumbnails/%252e%252e/%252e%252e",
        b"/thumbnails/..%5c..%5cetc/passwd",
        b"/thumbnails/alpha/..%2f..%2fetc%2fpasswd",
        b"/thumbnails/alpha/%00.png",
        b"/thumbnails/alpha/image_0.png%00",
        b"/thumbnails/%ff/%fe",
        b"/thumbnails//etc/passwd",
        b"/operations/..%2f..%2fetc%2fpasswd",
        b"/operations/x/thumbnail?name=../../etc/passwd",
        b"/base-set?class=../../etc",
    ],
)
def test_path_out_of_its_folder_leads_nowhere(console: RunningConsole, path: bytes) -> None:
    received = exchange(console.port, b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert received.split()[1] in {b"400", b"404", b"405"} or path.startswith(b"/base-set?")
    assert b"root:" not in received
    assert b"import" not in received


@pytest.mark.parametrize(
    "content", [SVG, PAGE, b"%PDF-1.4", b"<?xml version='1.0'?>" + SVG], ids=["svg", "html", "pdf", "xml"]
)
def test_what_is_no_image_is_refused_by_reason_and_never_served_back(console: RunningConsole, content: bytes) -> None:
    (entry,) = console.ask("POST", "/classify", files={"a.svg": content}).json
    assert entry["Label"] is None
    assert "no image in a supported format" in entry["Error"]
    page = console.ask("POST", "/classify", headers=HTML, files={"a.svg": content})
    assert page.status == 400
    assert b"alert(" not in page.body
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["x-content-type-options"] == "nosniff"
