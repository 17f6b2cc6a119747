"""Progress, on a terminal and in a log."""

import io

import pytest

from inference_client.command_line import progress as progress_module
from inference_client.command_line.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now_s = 0.0

        def monotonic(self):
            return self.now_s

    running = Clock()
    monkeypatch.setattr(progress_module, "time", running)
    return running


def test_log_gets_a_line_every_few_seconds_and_one_at_the_end(clock, capsys):
    with progress("Reading", 1000) as advance:
        for _ in range(100):
            clock.now_s += 0.12
            advance(10)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "Reading: 420 of 1000 (42 %, about 0:00:07 left)",
        "Reading: 840 of 1000 (84 %, about 0:00:02 left)",
        "Reading: 1000 of 1000 (100 %)",
    ]


def test_line_of_the_end_is_not_printed_twice(clock, capsys):
    with progress("Reading", 2) as advance:
        clock.now_s += 60
        advance(2)
    assert capsys.readouterr().err == "Reading: 2 of 2 (100 %)\n"


def test_nothing_to_do_is_done(capsys):
    with progress("Reading", 0):
        pass
    assert capsys.readouterr().err == ""


def test_failed_work_shows_how_far_it_came(capsys):
    def write():
        with progress("Writing", 4) as advance:
            advance(1)
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert capsys.readouterr().err == "Writing: 1 of 4 (25 %)\n"


def test_terminal_gets_a_bar_on_stderr(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with progress("Reading", 4) as advance:
        for _ in range(4):
            advance(1)
    assert "Reading" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()
    assert capsys.readouterr().out == ""
