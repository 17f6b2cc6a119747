"""People at the console, a scripted Chromium each, beside a load: ``python -m tests.console.people``."""

from __future__ import annotations

import contextlib
import random
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import psutil
from PIL import Image
from selenium.common.exceptions import WebDriverException

from inference_client import Classify
from inference_client.command_line.formatting import table_lines
from tests.console.browser import Browser, open_browser
from tests.console.demonstration import Served, served_demonstration
from tests.console.load import Counts, Load, running_load

FOLDER = Path("build/console-people")
PAUSE_S = (1.5, 4.5)  # between one person's clicks
SETTLE_S = 8.0  # between two segments
CYCLE_MINUTES = 2.0
LEAST_SHARE = 0.95
MOST_GROWTH = 0.10
WITHOUT, IDLE, IN_USE = "suspended", "there, nobody uses it", "in use"


@dataclass
class Tally:
    """What people saw.

    Attributes:
        clicks: Clicks by what they were for.
        answers: Images that were answered.
        wrong: Answers with another label than the right one.
        failures: What went wrong, in words.
    """

    clicks: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    wrong: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class _LeavesError(Exception):
    """The person stops in the middle of things, since the run is over."""


class Person:
    """Somebody with a browser, who does one thing after the other while ``goes_on`` is set.

    Args:
        served: What is used.
        images: Images to classify, with their right labels.
        tally: Counts what happens.
        changes: Whether this person changes the base set.
        seed: What the choices are made from.
    """

    def __init__(self, served: Served, images: dict[Path, str], tally: Tally, *, changes: bool, seed: int) -> None:
        self._served = served
        self._images = images
        self._tally = tally
        self._changes = changes
        self._random = random.Random(seed)
        self._additions = 0
        self.goes_on = threading.Event()
        self.ends = threading.Event()
        self.is_ready = threading.Event()
        self.rests = threading.Event()

    def live(self) -> None:
        """Use the console until ``ends`` is set."""
        try:
            with open_browser(in_its_own_session=True) as browser:
                _yield_the_cores(browser)
                self.is_ready.set()
                while not self.ends.is_set():
                    self.rests.set()
                    if self.goes_on.wait(0.2):
                        self.rests.clear()
                        self._do_something(browser)
        except Exception as error:
            self._tally.failures.append(f"a person's browser failed: {error}")
        finally:
            self.is_ready.set()
            self.rests.set()

    def _do_something(self, browser: Browser) -> None:
        actions: list[Callable[[Browser], None]] = [self._classify, self._classify, self._browse, self._look]
        action = self._change if self._changes else self._random.choice(actions)
        try:
            action(browser)
        except _LeavesError:
            pass
        except (WebDriverException, AssertionError) as error:
            where = browser.driver.current_url
            said = " ".join(alert.text for alert in browser.all("[role=alert]"))
            self._tally.failures.append(f"{action.__name__} at {where}: {type(error).__name__} {error} {said}"[:500])

    def _click(self, what: str) -> None:
        self._tally.clicks[what] += 1
        if self.ends.wait(self._random.uniform(*PAUSE_S)):
            raise _LeavesError

    def _classify(self, browser: Browser) -> None:
        browser.open(f"{self._served.console.url}/")
        self._click("opened the classify page")
        files = self._random.sample(sorted(self._images), self._random.randint(1, 3))
        browser.choose(*files)
        answers = browser.answers()
        assert len(answers) == len(files)
        for file, answer in zip(files, answers, strict=True):
            label = answer.get_attribute("data-label")
            self._tally.answers += 1
            if label != self._images[file]:
                self._tally.wrong.append(f"{file}: {label}")
        self._click("classified images")
        for value in (0.99, 0.5):
            browser.move_threshold(value)
            browser.wait(lambda value=value: browser.text("#status").startswith(f"At {value:g}"))
            self._click("moved the threshold")

    def _browse(self, browser: Browser) -> None:
        browser.open(f"{self._served.console.url}/base-set")
        browser.find(".classes")
        self._click("opened the base set")
        self._random.choice(browser.all(".classes h2 a")).click()
        browser.find("main img")
        self._click("opened a class")

    def _look(self, browser: Browser) -> None:
        for page in ("status", "docs"):
            browser.open(f"{self._served.console.url}/{page}")
            browser.find("main h1")
            self._click(f"opened {page}")

    def _change(self, browser: Browser) -> None:
        """Add an image after a check; then remove it, or roll back."""
        file = self._next_addition()
        browser.open(f"{self._served.console.url}/base-set?class={file.parent.name}")
        self._click("opened a class")
        browser.find(f"form[data-async] input[name=class][value='{file.parent.name}'] ~ * input[type=file]").send_keys(
            str(file)
        )
        self._confirm(browser, "checked an addition")
        self._click("added an image")
        way_back = "rollback" if self._additions % 3 == 0 else "check"
        browser.find(f"#back ~ form[action$='{way_back}'] button, section form[action$='{way_back}'] button").click()
        if way_back == "check":
            self._confirm(browser, "checked a removal")
            self._click("removed an image")
        else:
            browser.find("#outcome")
            self._click("rolled back")

    def _confirm(self, browser: Browser, what: str) -> None:
        button = browser.find("form[action$='/confirm'] button")
        self._click(what)
        button.click()
        browser.find("#outcome")

    def _next_addition(self) -> Path:
        """Write an image that is almost one of the base set, so that no label changes."""
        self._additions += 1
        pattern = sorted(self._served.base.glob("*/*.png"))[0]
        file = FOLDER / "additions" / pattern.parent.name / f"again_{self._additions}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = Image.open(pattern).convert("RGB")
        image.putpixel((0, 0), (self._additions % 256, self._additions // 256, 0))
        image.save(file)
        return file.resolve()


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A time in which the console was in one state.

    Attributes:
        state: What the console did.
        seconds: How long.
        counts: What the load saw.
        people_images: Images that people had answered.
        memory_mb: Resident memory of the console at the end.
        cpu_s: CPU time of the console.
    """

    state: str
    seconds: float
    counts: Counts
    people_images: int
    memory_mb: float
    cpu_s: float

    @property
    def throughput(self) -> float:
        """Images per second of the load."""
        return self.counts.images / self.seconds


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=click.FloatRange(min=0.2), default=10, show_default=True, help="How long people click.")
@click.option("--people", type=click.IntRange(min=1), default=8, show_default=True)
def main(minutes: float, people: int) -> None:
    """Have people use the demonstration's console beside a load of Classify, and print what it costs.

    The load runs all the time. In turn the console is suspended, there with
    nobody using it, and in use by people who click every few seconds; one of
    them adds, removes and rolls back.

    Exit status: 0 if no answer was lost or wrong, the console's memory stayed
    flat and it took at most 5 % of the throughput away; 1 otherwise.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with served_demonstration(FOLDER) as served:
        images = _decided_images(served)
        tally = Tally()
        crowd = [Person(served, images, tally, changes=number == 0, seed=number) for number in range(people)]
        threads = [threading.Thread(target=person.live) for person in crowd]
        files = sorted(images)
        try:
            for person, thread in zip(crowd, threads, strict=True):
                thread.start()
                person.is_ready.wait()
            click.echo(f"{people} browsers are open, {len(files)} images", err=True)
            with running_load(served.server.url, files, [images[file] for file in files], FOLDER) as load:
                segments = _run(served, crowd, tally, load, minutes)
        finally:
            for person in crowd:
                person.ends.set()
            for thread in threads:
                if thread.is_alive():
                    thread.join()
        log = served.console.log.read_text(encoding="utf-8")
    sys.exit(0 if _report(segments, tally, log) else 1)


def _decided_images(served: Served) -> dict[Path, str]:
    """Return the images whose label a near copy of a base image can't change, and their labels."""
    with Classify(served.server.url, details=True) as classify:
        results, status = classify(served.queries)
    assert status == 200, results
    decided = {}
    for file, entry in zip(served.queries, results, strict=True):
        assert isinstance(entry, dict)
        first, second = sorted(entry["Matches"].values(), reverse=True)[:2]
        if first - second > 3:
            decided[file.resolve()] = entry["Label"]
    assert decided, "no image has a clear label"
    return decided


def _run(served: Served, crowd: Sequence[Person], tally: Tally, load: Load, minutes: float) -> list[Segment]:
    cycles = max(1, round(minutes / CYCLE_MINUTES))
    in_use_s = 60 * minutes / cycles
    segments = []
    console = psutil.Process(served.console.process.pid)
    for person in crowd:  # caches and connections first
        person.goes_on.set()
    time.sleep(min(20, in_use_s))
    for cycle in range(cycles):
        for state in (WITHOUT, IDLE, IN_USE)[:: 1 if cycle % 2 else -1]:
            with _state(state, console, crowd):
                segments.append(_measure(state, in_use_s if state == IN_USE else in_use_s / 3, console, tally, load))
            click.echo(f"cycle {cycle + 1} of {cycles}: {state}: {segments[-1].throughput:.1f} images/s", err=True)
    for person in crowd:
        person.goes_on.clear()
    return segments


@contextlib.contextmanager
def _state(state: str, console: psutil.Process, crowd: Sequence[Person]) -> Iterator[None]:
    for person in crowd:
        if state == IN_USE:
            person.goes_on.set()
        else:
            person.goes_on.clear()
    if state != IN_USE:
        for person in crowd:
            while not person.rests.wait(0.1) or person.goes_on.is_set():
                pass
    time.sleep(SETTLE_S)
    if state == WITHOUT:
        console.suspend()
    try:
        yield
    finally:
        console.resume()


def _measure(state: str, seconds: float, console: psutil.Process, tally: Tally, load: Load) -> Segment:
    answers, cpu_s, begin_s = tally.answers, _cpu_s(console), time.monotonic()
    time.sleep(seconds)
    end_s = time.monotonic()
    time.sleep(1.1)  # the load's last line
    return Segment(
        state=state,
        seconds=seconds,
        counts=load.counts(begin_s, end_s),
        people_images=tally.answers - answers,
        memory_mb=console.memory_info().rss / 1e6,
        cpu_s=_cpu_s(console) - cpu_s,
    )


def _cpu_s(console: psutil.Process) -> float:
    times = console.cpu_times()
    return float(times.user + times.system)


def _report(segments: Sequence[Segment], tally: Tally, log: str) -> bool:
    lines = [
        ["the console is", "images/s of the load", "of", "of that without", "CPU of the console", "people's images"]
    ]
    throughput = {
        state: statistics.median(each.throughput for each in segments if each.state == state)
        for state in (WITHOUT, IDLE, IN_USE)
    }
    for state, median in throughput.items():
        of = [each for each in segments if each.state == state]
        values = sorted(each.throughput for each in of)
        lines.append(
            [
                state,
                f"{median:.1f}",
                f"{values[0]:.1f} to {values[-1]:.1f}, {len(of)} segments",
                f"{100 * median / throughput[WITHOUT]:.1f} %",
                f"{100 * sum(each.cpu_s for each in of) / sum(each.seconds for each in of):.1f} % of a core",
                str(sum(each.people_images for each in of)),
            ]
        )
    click.echo("\n".join(table_lines(lines)))
    lost = sum(each.counts.lost for each in segments)
    wrong = sum(each.counts.wrong for each in segments)
    memory_mb = [each.memory_mb for each in segments if each.state == IN_USE]
    traces = log.count("Traceback")
    click.echo(f"load: {sum(each.counts.images for each in segments)} images, {lost} lost, {wrong} wrong")
    click.echo(f"people: {tally.answers} images, {len(tally.failures)} failures, {len(tally.wrong)} wrong")
    click.echo("clicks: " + ", ".join(f"{count} {what}" for what, count in sorted(tally.clicks.items())))
    click.echo(f"memory of the console, MB: {', '.join(f'{value:.0f}' for value in memory_mb)}")
    click.echo(f"log of the console: {traces} tracebacks")
    for what in [*tally.failures, *tally.wrong][:20]:
        click.echo(f"  {what}")
    return (
        not lost + wrong + len(tally.failures) + len(tally.wrong) + traces
        and memory_mb[-1] <= memory_mb[0] * (1 + MOST_GROWTH)
        and throughput[IN_USE] >= LEAST_SHARE * throughput[WITHOUT]
    )


def _yield_the_cores(browser: Browser) -> None:
    """Let the browser have what cores are idle: on people's own machines it would take nothing from the server."""
    driver = psutil.Process(browser.driver.service.process.pid)
    for process in (driver, *driver.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            process.nice(19)
    with contextlib.suppress(OSError):  # where the kernel groups processes by session
        Path(f"/proc/{driver.pid}/autogroup").write_text("19")


if __name__ == "__main__":
    main(prog_name="python -m tests.console.people")
