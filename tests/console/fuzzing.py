"""Cases made from the OpenAPI description, against a real console and server: ``python -m tests.console.fuzzing``."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import click

from tests.console.demonstration import served_demonstration

FOLDER = Path("build/console-fuzzing")
# Not positive_data_acceptance: a text that the schema allows is still no image, and no name of one.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ensure_resource_availability",
)
_COUNT = re.compile(r"(\d+) generated")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run.

    Attributes:
        cases: Number of requests that were made up and sent.
        passed: Whether every answer was as described.
        report: What schemathesis printed.
    """

    cases: int
    passed: bool
    report: str


def fuzz(url: str, *, examples: int, seed: int, phases: str = "examples,coverage,fuzzing,stateful") -> Outcome:
    """Send made-up requests to a console, and check its answers against its own description.

    Args:
        url: The console.
        examples: Number of cases for each operation in the phase fuzzing.
        seed: What the cases are made from.
        phases: The phases of schemathesis to run.
    """
    program = str(Path(sys.executable).with_name("schemathesis"))
    with tempfile.TemporaryDirectory() as folder:
        command = [
            program, "run", f"{url}/openapi.json", "--checks", ",".join(CHECKS),
            "--phases", phases, "--max-examples", str(examples), "--seed", str(seed), "--continue-on-failure",
            "--generation-database", "none", "--request-timeout", "120", "--no-color", "--no-shrink",
            "--suppress-health-check", "all", "--warnings", "off",
        ]  # fmt: skip
        done = subprocess.run(
            command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder
        )
    counts = _COUNT.findall(done.stdout)
    return Outcome(cases=int(counts[-1]) if counts else 0, passed=done.returncode == 0, report=done.stdout)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--cases", type=click.IntRange(min=1), default=2000, show_default=True, help="Least number of cases.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the first round; others count up.")
def main(cases: int, seed: int) -> None:
    """Fuzz every operation of the console's REST API, those that change the base set too, on a copy.

    Exit status: 0 if every answer was as described; 1 otherwise.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the server is stopped too
    total = 0
    passed = True
    with served_demonstration(FOLDER) as served:
        with urllib.request.urlopen(f"{served.console.url}/openapi.json") as answer:
            paths = json.load(answer)["paths"]
        operations = sum(len(methods) for methods in paths.values())
        while total < cases and passed:
            outcome = fuzz(served.console.url, examples=max(5, (cases - total) // operations), seed=seed)
            passed = outcome.passed and outcome.cases > 0
            total += outcome.cases
            seed += 1
            click.echo(outcome.report)
        log = served.console.log.read_text(encoding="utf-8")
    failed = "Traceback" in log or '"status": 500' in log
    click.echo(f"{total} cases of {operations} operations: {'every answer was as described' if passed else 'FAILED'}")
    click.echo(f"the console's log {'has a traceback or a 500: ' + str(FOLDER) if failed else 'has no failure'}")
    sys.exit(0 if passed and not failed else 1)


if __name__ == "__main__":
    main(prog_name="python -m tests.console.fuzzing")
