"""The scenarios, in namespaces of their own: ``python -m tests.containers`` starts this."""

from __future__ import annotations

import functools
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from tests.chaos.tally import Tally, format_table
from tests.containers import images, stack, systemd, without_gpu
from tests.containers.engine import NoEngineError, running_engine
from tests.containers.materials import get_materials
from tests.containers.place import ENGINE, HOST, MATERIALS, Place, open_place
from tests.containers.stand_ins import make_stand_ins, served_wheels

SCENARIOS: dict[str, Callable[[Place], Iterator[Tally]]] = {
    "images": images.build,
    "compose": stack.run_stack,
    "without a GPU": without_gpu.run_without_gpu,
    "systemd": systemd.run_systemd,
}
ALONGSIDE = "systemd"  # it needs nothing of the others, and has a container of its own


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the whole run."""
    for option in (
        click.option("--only", multiple=True, help="Only scenarios whose names contain this; may be given repeatedly."),
        click.option("--runc", type=click.Path(path_type=Path), help="What runs containers, in place of PATH's runc."),
    ):
        command = option(command)
    return command


@click.command()
@options
def main(only: tuple[str, ...], runc: Path | None) -> None:
    """Start the engine, run the scenarios, and print the table."""
    _name_this_host(ENGINE / "hosts")
    materials = get_materials(MATERIALS)
    try:
        with running_engine(ENGINE, runc) as engine, served_wheels(materials.wheels):
            began_s = time.monotonic()
            click.echo("in place of what a registry would give:")
            for image, what in make_stand_ins(engine, materials).items():
                click.echo(f"  {image}: {what}")
            click.echo(f"stand-ins: {time.monotonic() - began_s:.0f} s", err=True)
            place = open_place(engine, materials)
            tallies, failures = _run(place, only)
            click.echo("".join(f"{line}\n" for line in images.sizes(place)))
    except NoEngineError as error:
        click.echo(f"SKIPPED: no container was run: {error}")
        return
    click.echo(format_table(tallies))
    for failure in failures:
        click.echo(f"FAILED {failure}")
    sys.exit(bool(failures))


def _run(place: Place, only: tuple[str, ...]) -> tuple[list[Tally], list[str]]:
    names = [name for name in SCENARIOS if not only or any(part in name for part in only)]
    groups = [[name for name in names if name != ALONGSIDE], [name for name in names if name == ALONGSIDE]]
    with ThreadPoolExecutor() as threads:
        done = [*threads.map(functools.partial(_run_in_turn, place), groups)]
    return [tally for tallies, _ in done for tally in tallies], [each for _, failures in done for each in failures]


def _run_in_turn(place: Place, names: Sequence[str]) -> tuple[list[Tally], list[str]]:
    tallies: list[Tally] = []
    failures: list[str] = []
    for name in names:
        began_s = time.monotonic()
        try:
            for tally in SCENARIOS[name](place):
                click.echo(f"  {tally.what}: {time.monotonic() - began_s:.0f} s", err=True)
                tallies.append(tally)
                if tally.wrong or tally.lost or tally.hung:
                    failures.append(f"{tally.what}: not kept")
        except AssertionError as error:
            failures.append(f"{name}: {error}\n{_logs(place)}")
        click.echo(f"{name}: {time.monotonic() - began_s:.0f} s", err=True)
    return tallies, failures


def _logs(place: Place) -> str:
    names = place.engine.docker("ps", "--all", "--format", "{{.Names}}").split()
    return "\n".join(f"--- {name}\n{place.engine.logs(name)}" for name in names)


def _name_this_host(hosts: Path) -> None:
    socket.sethostname(HOST)
    hosts.write_text(f"127.0.0.1 localhost {HOST}\n")
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)


if __name__ == "__main__":
    main()
