"""The cost of each file: ``python -m tests.heavy`` decodes each in a process of its own, and prints one table."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from tests.heavy.files import FILES
from tests.heavy.measure import measure


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, help="Only files whose names contain this; may be given several times.")
@click.option("--share", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="Of each file's size.")
@click.option(
    "--limit_s", type=click.FloatRange(min=1), default=30, show_default=True, help="Most processor time for a file."
)
def main(only: tuple[str, ...], share: float, limit_s: float) -> None:
    """Decode the heavy files with the imported code, and print the cost of each."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "image"
        click.echo(f"{'way':10}  {'file':38}  {'bytes':>11}  {'seconds':>8}  {'MB':>6}  answer")
        for heavy in FILES:
            if only and not any(part in heavy.name for part in only):
                continue
            data = heavy.build(share)
            file.write_bytes(data)
            cost = measure(file, limit_s)
            click.echo(
                f"{heavy.way:10}  {heavy.name:38}  {len(data):11,}  {cost.seconds:8.2f}  "
                f"{cost.memory_mb:6.0f}  {cost.answer}"
            )


if __name__ == "__main__":
    main(prog_name="python -m tests.heavy")
