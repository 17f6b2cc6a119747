"""The page of docs/how-to/javascript.md in a real browser, before the gateway and a real server."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from inference_client import Classify
from inference_server.triton.process import RunningServer
from tests.checkout import CHECKOUT
from tests.docs.snippets import read_snippets
from tests.gateway import running_gateway

pytestmark = pytest.mark.slow

CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
KEY = "correct-horse-battery-staple"
ADDRESS = "https://localhost:8443"  # in the page
ANSWER_TIMEOUT_S = 60


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    assert CHROMEDRIVER.exists(), "chromedriver is missing: apt-get install chromium chromium-driver, as make test does"
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.accept_insecure_certs = True  # the gateway's is self-signed
    for flag in FLAGS.split():
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A web site of one folder, and its origin."""
    folder = tmp_path / "site"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://localhost:{server.server_port}"
        server.shutdown()


@pytest.fixture
def ask(
    browser: webdriver.Chrome, site: tuple[Path, str], tmp_path: Path, clustering_server: RunningServer
) -> Callable[..., str]:
    """Choose a file in the page, with a key, and return what the page says then."""
    folder, origin = site
    (page,) = [each.code for each in read_snippets(CHECKOUT / "docs/how-to/javascript.md") if each.language == "html"]

    def choose(file: Path, key: str, *, origins: list[str] | None = None) -> str:
        named = [origin] if origins is None else origins
        address = clustering_server.url.removeprefix("http://")
        with running_gateway(
            tmp_path / f"nginx-{len(named)}-{key}", [address], {KEY: "ward 7"}, origins=named
        ) as gateway:
            assert ADDRESS in page
            (folder / "index.html").write_text(page.replace(ADDRESS, gateway.url))
            browser.get(origin)
            browser.find_element(By.ID, "key").send_keys(key)
            browser.find_element(By.ID, "file").send_keys(str(file))
            return WebDriverWait(browser, ANSWER_TIMEOUT_S).until(_result)

    return choose


def _result(browser: webdriver.Chrome) -> str:
    text = browser.find_element(By.ID, "result").text
    return "" if text == "classifying" else text


def test_page_of_a_named_origin_classifies_a_file_and_shows_errors(
    ask: Callable[..., str], classify: Classify, query_images: list[Path]
) -> None:
    ((expected,), _) = classify(query_images[0])
    assert ask(query_images[0], KEY) == f"{expected['Label']} ({expected['Probability']:.3f})"
    assert ask(query_images[0], "wrong") == "403: the API key is not known here"


def test_page_of_an_origin_that_is_not_named_reads_nothing(ask: Callable[..., str], query_images: list[Path]) -> None:
    assert ask(query_images[0], KEY, origins=["https://photos.example.org"]) == "Failed to fetch"
