"""The pages in a real browser, in front of a real server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from inference_client import Classify
from tests.console.browser import DESKTOP, PHONE, Browser, describe
from tests.console.states import STATES, TOKEN, Site, State

pytestmark = pytest.mark.slow

SMALLEST, LARGEST = 320, 2560
MARKUP = "<img src=x onerror=alert(1)>&amp;.png"


@pytest.fixture
def empty(browser: Browser, site: Site) -> Browser:
    browser.open(f"{site.open.url}/")
    return browser


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_page_is_for_everybody(browser: Browser, site: Site, state: State) -> None:
    browser.show(width=SMALLEST)
    state.reach(browser, site)
    logged = browser.log()
    assert all(state.log and state.log in line for line in logged), logged
    assert browser.width_of_content() == SMALLEST
    found = browser.axe()
    assert not found["violations"], describe(found)
    browser.show(width=DESKTOP, dark=True)
    found = browser.axe("color-contrast", "target-size")
    assert not found["violations"], describe(found)
    browser.show(width=LARGEST)
    assert browser.width_of_content() == LARGEST
    assert not browser.log()


@pytest.mark.parametrize("how", ["choose", "drop", "paste"])
def test_images_get_the_labels_that_classify_gives(empty: Browser, site: Site, classify: Classify, how: str) -> None:
    expected, _ = classify(site.images)
    if how == "choose":
        empty.choose(*site.images)
    else:
        empty.give(how, *site.images)
    answers = empty.answers()
    assert [answer.get_attribute("data-label") for answer in answers] == [entry["Label"] for entry in expected]
    assert [empty.text_in(answer, ".file") for answer in answers] == [image.name for image in site.images]
    assert empty.text("#status").startswith("3 images: ")


def test_answer_shows_its_evidence(empty: Browser, site: Site, classify: Classify) -> None:
    ((expected,), _) = classify(site.images[0], details=True)
    empty.choose(site.images[0])
    (answer,) = empty.answers()
    text = answer.text
    assert f"Version {expected['Version']}, threshold {expected['Threshold']}" in text
    assert len(empty.all(".bars tbody tr")) == len(expected["Scores"])
    assert len(empty.all(".thumbs .match, .thumbs .no-match")) == len(expected["Neighbors"])
    similarities = [float(each.text) for each in empty.all(".match strong, .no-match strong")]
    assert similarities == pytest.approx([each["Similarity"] for each in expected["Neighbors"]], abs=1.5e-4)
    assert empty.find(".query img").get_attribute("src").startswith("data:image/webp;base64,")


def test_moved_threshold_shows_what_changes_and_the_way_back(empty: Browser, site: Site, classify: Classify) -> None:
    empty.choose(*site.images)
    empty.answers()
    before = empty.shown()
    first = empty.text("#status")
    for value in (0.2, 0.5, 1.0):  # the last one counts
        empty.move_threshold(value)
    empty.wait(lambda: empty.text("#status").startswith("At 1,"))
    expected, _ = classify(site.images, sim_thres=1, details=True)
    assert empty.shown() == [(entry["Label"], str(entry["Matches"].get(entry["Label"], 0))) for entry in expected]
    changed = [note.is_displayed() for note in empty.all(".changed")]
    assert changed == [old != new for old, new in zip(before, empty.shown(), strict=True)]
    assert any(changed)
    assert empty.find(".query img").get_attribute("src").startswith("data:")
    empty.find("#own_threshold").click()
    empty.wait(lambda: empty.text("#status") == first)
    assert empty.shown() == before
    assert not any(note.is_displayed() for note in empty.all(".changed"))


def test_everything_is_reached_with_the_keyboard_alone(empty: Browser, site: Site) -> None:
    focused = [empty.press(Keys.TAB) for _ in range(7)]
    assert focused[0] == "Skip to the content"
    assert focused[-1] == "files"
    empty.choose(site.images[0])
    empty.answers()
    empty.focus("#slider")
    empty.press(Keys.ARROW_RIGHT)
    empty.wait(lambda: empty.text("#status").startswith("At 0.41,"))
    assert [empty.press(Keys.TAB) for _ in range(3)] == ["own_threshold", "print", "This is wrong"]
    empty.press(Keys.ENTER)
    assert empty.find(".correction form").is_displayed()
    assert [empty.press(Keys.TAB) for _ in range(2)] == ["class-1", "new-class-1"]
    assert empty.press(Keys.TAB) == "See what it would change"


def test_images_beyond_the_limit_are_not_sent(empty: Browser, site: Site) -> None:
    sent = site.open.log.read_text().count("POST /classify")
    empty.choose(*(site.images * 33)[:33])
    assert empty.text("#alerts [role=alert]") == "33 images are too many at a time. Choose up to 32."
    empty.choose(site.images[0])
    empty.answers()
    assert not empty.all("#alerts [role=alert]")
    assert site.open.log.read_text().count("POST /classify") == sent + 1


def test_cancelled_question_leaves_the_page_as_it_was(empty: Browser, site: Site) -> None:
    empty.slow_down()
    empty.choose(site.images[0])
    empty.find("#cancel").click()
    empty.wait(lambda: empty.text("#status") == "Cancelled: nothing was answered.")
    assert not empty.find("#busy").is_displayed()


def test_wrong_answer_leads_to_the_check_of_its_image(empty: Browser, site: Site) -> None:
    empty.choose(*site.images[:2])
    wrong = empty.answers()[1]
    (right, *_) = [name for name in ("alpha", "beta", "gamma") if name != wrong.get_attribute("data-label")]
    empty.focus("article:nth-child(2) summary")
    empty.press(Keys.ENTER)
    assert right in empty.text_in(wrong, "select")
    empty.find("article:nth-child(2) .correction button").click()
    empty.find("#flips")
    assert f"{right}/{site.images[1].name}" in empty.text("#images ~ ul")
    empty.find(".actions .quiet").click()
    empty.wait(lambda: empty.driver.current_url == f"{site.open.url}/base-set")


def test_wrong_answer_of_a_class_that_is_missing_leads_to_the_check_of_a_new_class(empty: Browser, site: Site) -> None:
    empty.choose(site.images[0])
    empty.answers()
    empty.find(".correction summary").click()
    empty.find("#new-class-1").send_keys("delta")
    empty.find(".correction button").click()
    empty.find("#flips")
    assert f"delta/{site.images[0].name}" in empty.text("#images ~ ul")
    empty.find(".actions .quiet").click()


def test_form_without_script_gives_the_same_answers(browser: Browser, site: Site, classify: Classify) -> None:
    expected, _ = classify(site.images[:2], sim_thres=0.9)
    with browser.without_script():
        browser.open(f"{site.open.url}/")
        browser.choose(*site.images[:2])
        browser.find("#sim_thres").send_keys("0.9")
        browser.find("#ask button").click()
        browser.find(".answer")
    assert [label for label, _ in browser.shown()] == [entry["Label"] for entry in expected]


def test_markup_in_a_file_name_is_text(empty: Browser, site: Site, tmp_path: Path) -> None:
    file = tmp_path / MARKUP
    file.write_bytes(site.images[0].read_bytes())
    empty.choose(file)
    (answer,) = empty.answers()
    assert empty.text_in(answer, ".file") == MARKUP
    assert not empty.log()


def test_ended_session_leads_to_the_login(browser: Browser, site: Site) -> None:
    browser.open(f"{site.tokens.url}/")
    browser.find("#token").send_keys(TOKEN)
    browser.find("main button").click()
    browser.find("#ask")
    browser.driver.delete_all_cookies()
    browser.choose(site.images[0])
    browser.find("#token")


def test_phone_offers_its_camera(browser: Browser, site: Site) -> None:
    browser.show(width=PHONE)
    browser.open(f"{site.open.url}/")
    assert browser.find(".photo").is_displayed()
    browser.find("#photo").send_keys(os.fspath(site.images[0]))
    assert len(browser.answers()) == 1


def test_answers_print_as_a_report(empty: Browser, site: Site) -> None:
    empty.choose(site.images[0])
    empty.answers()
    empty.show(media="print")
    assert not empty.find(".drop").is_displayed()
    assert not empty.find("nav").is_displayed()
    text = empty.text("body")
    assert "printed" in text
    assert "Version 1" in text
    assert "matches." in text or "match." in text or "threshold" in text
