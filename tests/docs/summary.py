"""The end of a test run's output: which blocks of README and docs were run."""

from __future__ import annotations

import pytest

RAN, NOT_RUN = "block that was run", "block that was not run"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which blocks of README and docs were run, and why the others were not."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    outcomes = [
        (kind, text)
        for report in reports
        if getattr(report, "when", None) == "call"
        for kind, text in report.user_properties
        if kind in (RAN, NOT_RUN)
    ]
    if outcomes:
        terminalreporter.section("code of README and docs")
        for _, text in outcomes:
            terminalreporter.line(str(text))
        kinds = [kind for kind, _ in outcomes]
        terminalreporter.line(f"{kinds.count(RAN)} blocks run, {kinds.count(NOT_RUN)} not run here")
