"""The states of the console's pages, which tests check and pictures show."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from inference_server.triton.process import free_ports
from tests.console.browser import Browser
from tests.console.running import RunningConsole, running_console

TOKEN = "correct-horse-battery-staple-for-tests"
TOKENS = f"clinician classify {TOKEN}\n"


@dataclass(frozen=True, kw_only=True)
class Site:
    """Consoles of each kind in front of one server, and images for them.

    Attributes:
        open: Everybody may change the base set.
        read_only: Nobody may.
        away: Neither the server nor base data nor a repository is there.
        changing: The same as ``open``, with a base set of its own, which states change.
        tokens: Visitors log in.
        images: Images that the server decodes, two or more.
        broken: A file that is no image.
    """

    open: RunningConsole
    read_only: RunningConsole
    away: RunningConsole
    changing: RunningConsole
    tokens: RunningConsole
    images: list[Path]
    broken: Path


@dataclass(frozen=True, kw_only=True)
class State:
    """A state of a page.

    Attributes:
        name: The page and its state, for the name of a file.
        reach: Brings a browser there.
        log: A part of each line that the browser logs then, of what the state is about; "": it logs nothing.
    """

    name: str
    reach: Callable[[Browser, Site], None]
    log: str = ""


@contextlib.contextmanager
def running_site(
    folder: Path,
    server_url: str,
    base: Path,
    repository: Path,
    images: list[Path],
    read_only: RunningConsole | None = None,
) -> Iterator[Site]:
    """Run the consoles.

    Args:
        folder: A folder for what they need.
        server_url: The server.
        base: Its base data.
        repository: Its model repository.
        images: Images to classify.
        read_only: A read-only console that runs already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    broken = folder / "letter.png"
    broken.write_text("Dear Sir or Madam,\n")
    tokens = folder / "tokens"
    tokens.write_text(TOKENS)
    tokens.chmod(0o600)
    (nobody,) = free_ports(1)
    here = ("-ip", server_url, "-data", str(base), "--model_repository", str(repository))
    compared = ("--queries", str(_folder_of(images, folder / "queries")))
    with contextlib.ExitStack() as stack:

        def start(name: str, *arguments: str) -> RunningConsole:
            return stack.enter_context(running_console(folder / f"{name}.log", *arguments))

        yield Site(
            open=start("open", *here, *compared),
            read_only=read_only or start("read_only", *here, "--read_only"),
            away=start("away", "-ip", f"http://127.0.0.1:{nobody}", "--model_repository", str(folder / "none")),
            changing=start("changing", "-ip", server_url, *_copy(base, repository, folder / "changing"), *compared),
            tokens=start("tokens", *here, "--token_file", str(tokens)),
            images=images,
            broken=broken,
        )


def _folder_of(files: list[Path], folder: Path) -> Path:
    folder.mkdir()
    for file in files:
        shutil.copy(file, folder)
    return folder


def _copy(base: Path, repository: Path, folder: Path) -> tuple[str, ...]:
    """Copy a base set, and return the options that name the copy. The network's file is shared."""
    shutil.copytree(base, folder / "base")
    shutil.copytree(repository, folder / "model_repository", copy_function=_link_network)
    return "-data", str(folder / "base"), "--model_repository", str(folder / "model_repository")


def _link_network(source: str, target: str) -> None:
    if source.endswith(".onnx"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def _empty(browser: Browser, site: Site) -> None:
    browser.open(f"{site.open.url}/")


def _busy(browser: Browser, site: Site) -> None:
    _empty(browser, site)
    browser.slow_down()
    browser.choose(*site.images)
    browser.wait(browser.find("#busy").is_displayed)


def _answered(browser: Browser, site: Site) -> None:
    _empty(browser, site)
    browser.choose(*site.images)
    browser.answers()


def _moved(browser: Browser, site: Site) -> None:
    _answered(browser, site)
    browser.move_threshold(1.0)
    browser.wait(lambda: browser.text("#status").startswith("At 1"))


def _wrong(browser: Browser, site: Site) -> None:
    _answered(browser, site)
    browser.find(".correction summary").click()


def _partly(browser: Browser, site: Site) -> None:
    _empty(browser, site)
    browser.choose(site.images[0], site.broken)
    browser.answers()


def _undecodable(browser: Browser, site: Site) -> None:
    _empty(browser, site)
    browser.choose(site.broken)
    browser.answers()


def _too_many(browser: Browser, site: Site) -> None:
    _empty(browser, site)
    browser.choose(*(site.images * 33)[:33])
    browser.find("#alerts [role=alert]")


def _offline(browser: Browser, site: Site) -> None:
    _empty(browser, site)
    with browser.offline():
        browser.choose(site.images[0])
        browser.find("#alerts [role=alert]")


def _without_script(browser: Browser, site: Site) -> None:
    with browser.without_script():
        _empty(browser, site)
        browser.choose(*site.images[:2])
        browser.find("form#ask button").click()
        browser.find(".answer")


def _server_away(browser: Browser, site: Site) -> None:
    browser.open(f"{site.away.url}/")


def _refused(browser: Browser, site: Site) -> None:
    _server_away(browser, site)
    browser.choose(site.images[0])
    browser.wait(
        lambda: "No image was answered" not in browser.text("#status") and not browser.find("#busy").is_displayed()
    )
    browser.find("#alerts [role=alert]")


def _read_only(browser: Browser, site: Site) -> None:
    browser.open(f"{site.read_only.url}/")
    browser.choose(site.images[0])
    browser.answers()
    browser.find(".correction summary").click()


def _page(path: str, kind: str = "open") -> Callable[[Browser, Site], None]:
    def reach(browser: Browser, site: Site) -> None:
        console: RunningConsole = getattr(site, kind)
        browser.open(f"{console.url}/{path}")

    return reach


def _login(browser: Browser, site: Site) -> None:
    browser.open(f"{site.tokens.url}/login")
    browser.driver.delete_all_cookies()
    browser.open(f"{site.tokens.url}/")


def _login_refused(browser: Browser, site: Site) -> None:
    _login(browser, site)
    browser.open(f"{site.tokens.url}/login")
    browser.find("#token").send_keys("wrong" * 8)
    browser.find("main button").click()
    browser.find("[role=alert]")


def _logged_in(browser: Browser, site: Site) -> None:
    browser.open(f"{site.tokens.url}/login")
    browser.find("#token").send_keys(TOKEN)
    browser.find("main button").click()
    browser.find("#ask")
    browser.open(f"{site.tokens.url}/status")
    browser.find(".visitor")


def _add(*, is_broken: bool = False) -> Callable[[Browser, Site], None]:
    """Have the browser choose an image for the first class, and wait for what the check finds."""

    def reach(browser: Browser, site: Site) -> None:
        browser.open(f"{site.changing.url}/base-set")
        browser.find("[data-async] input[type=file]").send_keys(str(site.broken if is_broken else site.images[1]))
        browser.find("#flips")

    return reach


def _checking(browser: Browser, site: Site) -> None:
    browser.open(f"{site.changing.url}/base-set")
    browser.find("[data-async] input[type=file]").send_keys(str(site.images[2]))
    browser.find("[data-poll]")
    browser.slow_down()


def _added(browser: Browser, site: Site) -> None:
    _add()(browser, site)
    browser.find(".actions button").click()
    browser.find("#outcome")


def _class(browser: Browser, site: Site) -> None:
    browser.open(f"{site.changing.url}/base-set")
    browser.find(".classes h2 a").click()
    browser.find("[name=remove]").click()


def _forget(browser: Browser, site: Site) -> None:
    _class(browser, site)
    browser.find("[value=forget]").click()
    browser.find("[name=confirm]")


STATES = (
    State(name="classify-empty", reach=_empty),
    State(name="classify-busy", reach=_busy),
    State(name="classify-answered", reach=_answered),
    State(name="classify-threshold", reach=_moved),
    State(name="classify-wrong", reach=_wrong),
    State(name="classify-partly", reach=_partly),
    State(name="classify-undecodable", reach=_undecodable, log="400"),
    State(name="classify-too-many", reach=_too_many),
    State(name="classify-offline", reach=_offline, log="ERR_INTERNET_DISCONNECTED"),
    State(name="classify-without-script", reach=_without_script),
    State(name="classify-server-away", reach=_server_away),
    State(name="classify-refused", reach=_refused, log="503"),
    State(name="classify-read-only", reach=_read_only),
    State(name="base-set", reach=_page("base-set", "changing")),
    State(name="base-set-read-only", reach=_page("base-set", "read_only")),
    State(name="base-set-none", reach=_page("base-set", "away"), log="404"),
    State(name="class", reach=_class),
    State(name="forget", reach=_forget),
    State(name="operation-checking", reach=_checking),
    State(name="operation-checked", reach=_add()),
    State(name="operation-checked-undecodable", reach=_add(is_broken=True)),
    State(name="operation-added", reach=_added),
    State(name="status", reach=_page("status")),
    State(name="status-server-away", reach=_page("status", "away")),
    State(name="status-read-only", reach=_page("status", "read_only")),
    State(name="status-logged-in", reach=_logged_in),
    State(name="login", reach=_login),
    State(name="login-refused", reach=_login_refused, log="401"),
    State(name="docs", reach=_page("docs")),
    State(name="problem", reach=_page("no/such/page"), log="404"),
)
