"""The page in a real browser."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from tests.evaluation.conftest import HOSTILE_CLASS, Evaluated

CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
COLORS = {"--ink": 4.5, "--muted": 4.5, "--link": 4.5, **{f"--series-{number}": 3 for number in range(1, 7)}}
SMALLEST_WIDTH_PX, DESKTOP_WIDTH_PX = 360, 1280


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    assert CHROMEDRIVER.exists(), "chromedriver is missing: apt-get install chromium chromium-driver, as make test does"
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(params=["clustering_evaluation", "classification_evaluation"])
def page(request: pytest.FixtureRequest) -> Path:
    evaluated: Evaluated = request.getfixturevalue(request.param)
    return evaluated.out / "report.html"


def _open(browser: webdriver.Chrome, page: Path, *, width: int = DESKTOP_WIDTH_PX, scheme: str = "light") -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < DESKTOP_WIDTH_PX}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())


def _luminance(color: str) -> float:
    channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels]
    return sum(weight * channel for weight, channel in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one: str, other: str) -> float:
    darker, lighter = sorted(map(_luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


def _color(browser: webdriver.Chrome, variable: str) -> str:
    return browser.execute_script(
        "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0]).trim()", variable
    )


def test_page_opens_without_an_error_and_without_asking_for_anything(browser: webdriver.Chrome, page: Path) -> None:
    browser.get_log("performance")
    _open(browser, page)
    assert browser.title.startswith("Evaluation of ")
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
    assert requested
    assert {url for url in requested if not url.startswith("data:")} == {page.as_uri()}


@pytest.mark.parametrize("width", [SMALLEST_WIDTH_PX, DESKTOP_WIDTH_PX])
def test_page_is_no_wider_than_the_window(browser: webdriver.Chrome, page: Path, width: int) -> None:
    _open(browser, page, width=width)
    browser.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert browser.execute_script("return window.innerWidth") == width
    root = "document.documentElement"
    assert browser.execute_script(f"return {root}.scrollWidth - {root}.clientWidth") == 0


def test_table_that_goes_on_beyond_the_edge_shows_a_shadow_there(
    browser: webdriver.Chrome, clustering_evaluation: Evaluated
) -> None:
    _open(browser, clustering_evaluation.out / "report.html", width=SMALLEST_WIDTH_PX)
    table = browser.find_element(By.CSS_SELECTOR, "#classes .scroll")
    assert browser.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth", table)
    browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", table)
    place = browser.execute_script("return arguments[0].getBoundingClientRect().toJSON()", table)
    right, row = int(place["right"]), int(place["top"]) + 2  # above the text
    shown = np.asarray(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("L"), int)
    assert shown[row, right - 2] < shown[row, right - 60] - 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colors_of_text_and_plots_stand_out(browser: webdriver.Chrome, page: Path, scheme: str) -> None:
    _open(browser, page, scheme=scheme)
    background = _color(browser, "--page")
    assert (_luminance(background) < 0.05) == (scheme == "dark")
    painted = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert [int(number) for number in re.findall(r"\d+", painted)] == [
        int(background[at : at + 2], 16) for at in (1, 3, 5)
    ]
    for color, least in COLORS.items():
        assert _contrast(_color(browser, color), background) >= least, color
        assert _contrast(_color(browser, color), _color(browser, "--surface")) >= least, color
    drawn = browser.execute_script("return getComputedStyle(document.querySelector('.plot svg text')).fill")
    assert [int(number) for number in re.findall(r"\d+", drawn)] == [
        int(_color(browser, "--ink")[at : at + 2], 16) for at in (1, 3, 5)
    ]


def test_every_picture_has_a_text_alternative_and_every_id_is_the_only_one(
    browser: webdriver.Chrome, page: Path
) -> None:
    _open(browser, page)
    assert browser.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"
    plots = browser.find_elements(By.CSS_SELECTOR, "[role=img]")
    assert len(plots) == len(browser.find_elements(By.TAG_NAME, "svg")) == 5
    assert all(len(plot.get_attribute("aria-label") or "") > 20 for plot in plots)
    assert all(plot.find_elements(By.TAG_NAME, "svg") for plot in plots)
    assert all(image.get_attribute("alt") for image in browser.find_elements(By.TAG_NAME, "img"))
    headings = [int(heading.tag_name[1]) for heading in browser.find_elements(By.CSS_SELECTOR, "h1, h2, h3")]
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))
    ids: list[Any] = browser.execute_script("return [...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))
    links = browser.execute_script("return [...document.querySelectorAll('a')].map(each => each.hash.slice(1))")
    assert set(links) <= set(ids)


def test_hostile_names_are_shown_and_do_nothing(browser: webdriver.Chrome, clustering_evaluation: Evaluated) -> None:
    _open(browser, clustering_evaluation.out / "report.html")
    assert browser.execute_script("return typeof hacked") == "undefined"
    assert browser.find_elements(By.CSS_SELECTOR, "script, img[src=x]") == []
    headers = [header.text for header in browser.find_elements(By.CSS_SELECTOR, ".matrix tbody th")]
    assert HOSTILE_CLASS in headers
    text = (clustering_evaluation.out / "report.html").read_text()
    assert "\u202e" not in text


def test_errors_are_shown_beside_their_nearest_base_images(
    browser: webdriver.Chrome, clustering_evaluation: Evaluated
) -> None:
    _open(browser, clustering_evaluation.out / "report.html")
    errors = browser.find_elements(By.CSS_SELECTOR, ".errors > li")
    assert errors
    for error in errors:
        pictures = error.find_elements(By.TAG_NAME, "img")
        assert len(pictures) == 1 + 3
        assert all(browser.execute_script("return arguments[0].naturalWidth", picture) for picture in pictures)
