"""The page of the commands, made from what each says with ``-h``: ``python -m tests.docs.cli_reference``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.checkout import CHECKOUT

PAGE = CHECKOUT / "docs" / "reference" / "cli.md"
WIDTH = 100
TRITONS_OWN = "\nTriton's own help:"
HEAD = """# Commands

Each command's own `-h`. Every one exits with 0 if it did what was asked, and 2 on wrong usage; results go to standard
output, progress and messages to standard error.
"""


def cli_reference() -> str:
    """Ask every command of the project for its help, and put the answers into one page."""
    scripts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    return HEAD + "".join(f"\n## {name}\n\n```text\n{_help(name)}\n```\n{_commands(name)}" for name in scripts)


def _commands(name: str) -> str:
    """Ask each command of a group for its help."""
    listed = _help(name).partition("\nCommands:\n")[2]
    commands = re.findall(r"^  (\w+)", listed, re.MULTILINE)
    return "".join(f"\n### {name} {each}\n\n```text\n{_help(name, each)}\n```\n" for each in commands)


def _help(name: str, *subcommand: str) -> str:
    command = Path(sys.executable).with_name(name)
    environment = {**os.environ, "COLUMNS": str(WIDTH)}
    # Not `check`: Triton's own help, which ends that of tritonserver, ends with code 1.
    output = subprocess.run(
        [command, *subcommand, "-h"], env=environment, capture_output=True, text=True, check=False
    ).stdout
    text = output.partition(TRITONS_OWN)[0].strip()
    assert text.startswith("Usage: "), output
    return text


if __name__ == "__main__":
    PAGE.write_text(cli_reference(), encoding="utf-8")
