"""A few cases made from the OpenAPI description; ``make fuzz-console`` sends thousands."""

from __future__ import annotations

import pytest

from tests.console.fuzzing import fuzz
from tests.console.running import RunningConsole

pytestmark = pytest.mark.slow


def test_answers_to_made_up_requests_are_as_described(console: RunningConsole) -> None:
    outcome = fuzz(console.url, examples=6, seed=17, phases="examples,fuzzing")
    assert outcome.passed, outcome.report
    assert outcome.cases >= 60
    assert '"status": 500' not in console.log.read_text()
