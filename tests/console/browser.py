"""A real Chromium without a window, and what the tests of the pages ask of it."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.checkout import CHECKOUT

CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync "
    "--disable-dev-shm-usage --hide-scrollbars"
)
AXE = CHECKOUT / "build/axe/node_modules/axe-core/axe.min.js"
TIMEOUT_S = 120  # a check on a busy machine
PHONE, DESKTOP = 390, 1280
_HEIGHT = {320: 640, PHONE: 844, DESKTOP: 800, 2560: 1440}

# Drops files, or pastes them, as the browser does it. The first argument is where, the second the event's type, the
# others are pairs of a file's name and its content in base64.
_GIVE_FILES = """
const [place, type, ...files] = arguments;
const transfer = new DataTransfer();
for (const [name, content] of files) {
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  transfer.items.add(new File([bytes], name));
}
const target = place || document.body;
if (type === 'paste') target.dispatchEvent(new ClipboardEvent(type, {clipboardData: transfer, bubbles: true}));
else for (const each of ['dragenter', 'dragover', type])
  target.dispatchEvent(new DragEvent(each, {dataTransfer: transfer, bubbles: true, cancelable: true}));
"""


class Browser:
    """One Chromium, whose window, colors and script can be set."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self._is_slow = False
        self._metrics: dict[str, Any] = {}

    def reset(self) -> None:
        """Show nothing in a desktop's window, without cookies and with an empty log."""
        self.open("about:blank")
        self._cdp("Network.clearBrowserCookies", {})
        self.show()
        self.log()

    def open(self, url: str) -> None:
        if self._is_slow:
            self._set_network()
        self.driver.get(url)

    def show(self, *, width: int = DESKTOP, dark: bool = False, media: str = "", scale: float = 1) -> None:
        """Set the window and what the system prefers. Motion is always reduced, so that nothing is caught halfway."""
        self._metrics = {
            "width": width,
            "height": _HEIGHT[width],
            "deviceScaleFactor": scale,
            "mobile": width <= PHONE,
        }
        self._cdp("Emulation.setDeviceMetricsOverride", self._metrics)
        self._cdp("Emulation.setTouchEmulationEnabled", {"enabled": width <= PHONE})
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self._cdp("Emulation.setEmulatedMedia", {"media": media, "features": features})

    @contextlib.contextmanager
    def without_script(self) -> Iterator[None]:
        self._cdp("Emulation.setScriptExecutionDisabled", {"value": True})
        try:
            yield
        finally:
            self._cdp("Emulation.setScriptExecutionDisabled", {"value": False})

    @contextlib.contextmanager
    def offline(self) -> Iterator[None]:
        self._set_network(offline=True)
        try:
            yield
        finally:
            self._set_network()

    def slow_down(self) -> None:
        """Have every request take a minute, until the next page is opened."""
        self._set_network(latency=60_000)

    def _set_network(self, *, offline: bool = False, latency: int = 0) -> None:
        self._is_slow = latency > 0
        conditions = {"offline": offline, "latency": latency, "downloadThroughput": -1, "uploadThroughput": -1}
        self._cdp("Network.enable", {})
        self._cdp("Network.emulateNetworkConditions", conditions)

    def find(self, selector: str) -> WebElement:
        """Return the first element of a selector, as soon as there is one."""
        return self.wait(lambda: next(iter(self.all(selector)), None))

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def wait(self, condition: Any) -> Any:
        waiting = WebDriverWait(self.driver, TIMEOUT_S, 0.05, ignored_exceptions=[StaleElementReferenceException])
        return waiting.until(lambda _: condition())

    def text_in(self, element: WebElement, selector: str) -> str:
        return element.find_element(By.CSS_SELECTOR, selector).text

    def focus(self, selector: str) -> None:
        self.driver.execute_script("arguments[0].focus()", self.find(selector))

    def press(self, key: str) -> str:
        """Press a key, and return the id of what then has the focus, or its text."""
        ActionChains(self.driver).send_keys(key).perform()
        focused = self.driver.switch_to.active_element
        return focused.get_attribute("id") or focused.text

    def shown(self) -> list[tuple[str, str]]:
        """Return each answer's label, and its number of matches."""
        return [
            (answer.get_attribute("data-label") or "", answer.get_attribute("data-matches") or "")
            for answer in self.answers()
        ]

    def choose(self, *files: Path) -> None:
        self.find("#files").send_keys("\n".join(str(file) for file in files))

    def give(self, how: str, *files: Path, place: str = "") -> None:
        """Drop or paste files: ``how`` is the event's type."""
        contents = [[file.name, base64.b64encode(file.read_bytes()).decode()] for file in files]
        self.driver.execute_script(_GIVE_FILES, self.find(place) if place else None, how, *contents)

    def move_threshold(self, value: float) -> None:
        self.driver.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'));",
            self.find("#slider"),
            value,
        )

    def answers(self) -> list[WebElement]:
        """Return the answers, as soon as they are shown."""
        self.wait(lambda: any(answer.is_displayed() for answer in self.all(".answer")))
        return self.all(".answer")

    def log(self) -> list[str]:
        """Return what Chromium has logged since it was last asked: errors, and what the security policy refused."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def wait_for_images(self) -> None:
        """Wait until every image is there, those far down the page too."""
        script = (
            "for (const image of document.images) image.loading = 'eager';"
            "return [...document.images].every((image) => image.complete);"
        )
        self.wait(lambda: self.driver.execute_script(script))

    def width_of_content(self) -> int:
        return int(self.driver.execute_script("return document.documentElement.scrollWidth"))

    def height_of_content(self) -> int:
        return int(self.driver.execute_script("return document.documentElement.scrollHeight"))

    def axe(self, *rules: str) -> dict[str, Any]:
        """Return what axe-core finds on the page by its default rules: WCAG 2 A and AA, and best practices.

        Args:
            rules: Names of rules; none: all.
        """
        assert AXE.is_file(), f"axe-core is missing: make {AXE.relative_to(CHECKOUT)}"
        self.driver.execute_script(AXE.read_text(encoding="utf-8"))
        found: dict[str, Any] = self.driver.execute_async_script(
            "axe.run(arguments[0]).then(arguments[1], (error) => arguments[1]({error: String(error)}))",
            {"runOnly": list(rules)} if rules else {},
        )
        assert "error" not in found, found
        return found

    def picture(self) -> bytes:
        """Return the whole page as a PNG, in a window as high as the page, so that what sticks to its edge is there."""
        metrics = {**self._metrics, "height": max(self.height_of_content(), int(self._metrics["height"]))}
        self._cdp("Emulation.setDeviceMetricsOverride", metrics)
        answer = self._cdp("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True})
        self._cdp("Emulation.setDeviceMetricsOverride", self._metrics)
        return base64.b64decode(answer["data"])

    def _cdp(self, command: str, values: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.driver.execute_cdp_cmd(command, values)
        return answer


@contextlib.contextmanager
def open_browser(*, in_its_own_session: bool = False) -> Iterator[Browser]:
    """Run Chromium, in a session of its own where its priority must not be that of this process."""
    assert CHROMEDRIVER.exists(), "chromedriver is missing: apt-get install chromium chromium-driver, as make test does"
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.accept_insecure_certs = True  # a gateway's is self-signed
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in FLAGS.split():
        options.add_argument(flag)
    service = Service(str(CHROMEDRIVER), popen_kw={"start_new_session": in_its_own_session})
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()


def describe(found: dict[str, Any]) -> str:
    """Write axe's violations for people."""
    return json.dumps(
        [
            {"rule": each["id"], "help": each["help"], "at": [node["html"][:200] for node in each["nodes"]]}
            for each in found["violations"]
        ],
        indent=1,
    )
