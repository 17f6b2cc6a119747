"""Run what ``deploy/`` describes in a real engine: ``python -m tests.containers``."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time

import click
from filelock import FileLock

from inference_server.triton.process import start_child
from tests.containers import engine, inside, materials, systemd
from tests.containers.place import ENGINE, FOLDER, MATERIALS, SYSTEMD_CONTEXT, prepare_clone


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@inside.options
def main(**_: object) -> None:
    """Build the images, run Compose and systemd under load as the pages say, and print the fate of every image sent.

    A Docker engine of its own is started, with its own folders and network, and nothing of it is left afterwards.
    No registry is asked: images of Debian's and PyPI's packages stand in for those that deploy/ names.

    Exit status: 0 if no image was lost and every block of the pages did what it says, or if no engine can be started
    here, which is said with the reason; 1 otherwise.
    """
    obstacle = engine.obstacle() or materials.obstacle()
    if obstacle:
        click.echo(f"SKIPPED: no container was run: {obstacle}")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / "lock"):  # two runs would share folders
        sys.exit(_run(sys.argv[1:]))


def _run(options: list[str]) -> int:
    began_s = time.monotonic()
    click.echo("getting Debian's packages and wheels, and making networks of random weights", err=True)
    materials.get_materials(MATERIALS)
    prepare_clone()
    shutil.rmtree(SYSTEMD_CONTEXT, ignore_errors=True)
    SYSTEMD_CONTEXT.mkdir()
    systemd.prepare_context(SYSTEMD_CONTEXT)
    click.echo(f"prepared: {time.monotonic() - began_s:.0f} s", err=True)
    shutil.rmtree(ENGINE, ignore_errors=True)
    ENGINE.mkdir(parents=True)
    command = [*engine.NAMESPACES, sys.executable, "-m", "tests.containers.inside", *options]
    with tempfile.TemporaryDirectory(prefix="containers-") as temporary:
        process = start_child(command, environment={**os.environ, "TMPDIR": temporary})
        try:
            code = process.wait()
        finally:  # also at Ctrl-C: with this process, all of its namespaces end
            process.kill()
            process.wait()
            shutil.rmtree(ENGINE, ignore_errors=True)
    click.echo(f"all: {time.monotonic() - began_s:.0f} s", err=True)
    return code


if __name__ == "__main__":
    main()
