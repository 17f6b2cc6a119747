"""Look for files that stall the decoding: ``python -m tests.fuzz.stalls --seconds 120``; they stay in build/fuzz.

Ordinary small files are taken apart, and one structure of each is made to grow. A file that takes more time or memory
than an ordinary one of its length is a suspect. A suspect is then made as long as a file may be, and decoded as the
server does: what takes longer than ``MOST_S`` or more memory than ``MOST_MB`` is a stall.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import click

from inference_export.preprocessing import DEFAULT_LIMITS, UndecodableImageError, decode_pixels
from tests.heavy.measure import Cost, measure

from .moves import Growth, grow
from .structure import seeds

FOUND = Path("build/fuzz")
SEED = 12
SIDE = 32
# What no ordinary file of a length costs: a photograph takes 20 ms/MB, and twice its length beside its pixels.
ORDINARY_S, ORDINARY_S_PER_MB = 0.05, 0.1
ORDINARY_MB, ORDINARY_MB_PER_MB = 40.0, 6.0
SUSPECTED_BYTES = 2**19
LONGEST_BYTES = (2**24, 2**21)  # the shorter may be accepted where the longer is not
MOST_S, MOST_MB = 5.0, 1000.0  # what one file may cost whatever it is: a little more than its budget
_LIMIT_S = 2  # of a suspect


class Stall(NamedTuple):
    """A structure that stalls the decoding, the cost of it, and the file's length."""

    what: str
    cost: Cost
    length: int


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", type=click.FloatRange(min=1), default=120, show_default=True, help="How long.")
def main(seconds: float) -> None:
    """Look for files that stall the decoding.

    Exit status: 0 if no file did; 1 otherwise.
    """
    warnings.simplefilter("ignore")  # Pillow's, of damaged metadata
    FOUND.mkdir(parents=True, exist_ok=True)
    chance = random.Random(SEED)
    files = seeds()
    ends_s = time.monotonic() + seconds
    suspects: set[str] = set()
    stalls: list[Stall] = []
    tried = 0
    while time.monotonic() < ends_s:
        growth = grow(*chance.choice(files), chance)
        tried += 1
        if growth.what in suspects or not _is_suspect(growth):
            continue
        suspects.add(growth.what)
        stall = _confirm(growth)
        if stall:
            stalls.append(stall)
            click.echo(f"stall {_told(stall)}")
        else:
            click.echo(f"suspect, but no stall: {growth.what}")
    click.echo(f"{tried:,} files tried, {len(suspects)} suspects, {len(stalls)} stalls in {FOUND}")
    sys.exit(bool(stalls))


def _is_suspect(growth: Growth) -> bool:
    data = growth.build(SUSPECTED_BYTES)
    seconds, memory_mb = _decode_apart(data)
    length_mb = len(data) / 1e6
    return (
        seconds > ORDINARY_S + ORDINARY_S_PER_MB * length_mb
        or memory_mb > ORDINARY_MB + ORDINARY_MB_PER_MB * length_mb
    )


def _decode_apart(data: bytes) -> tuple[float, float]:
    """Decode in a process of its own; return its processor time in seconds, and how much memory it added in MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (_LIMIT_S, _LIMIT_S))
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # libtiff complains there
        with contextlib.suppress(UndecodableImageError, MemoryError):
            decode_pixels(data, SIDE)
        os._exit(0)
    _, _, usage = os.wait4(pid, 0)
    return usage.ru_utime + usage.ru_stime, max(0, usage.ru_maxrss - before) / 1e3


def _confirm(growth: Growth) -> Stall | None:
    file = FOUND / ("stall-" + "".join(letter if letter.isalnum() else "-" for letter in growth.what))
    for size in LONGEST_BYTES:
        data = growth.build(min(size, DEFAULT_LIMITS.file_bytes))
        file.write_bytes(data)
        cost = measure(file, MOST_S)
        if cost.seconds > MOST_S or cost.memory_mb > MOST_MB:
            return Stall(growth.what, cost, len(data))
    file.unlink()
    return None


def _told(stall: Stall) -> str:
    cost = stall.cost
    return f"{stall.what}: {cost.seconds:.1f} s, {cost.memory_mb:.0f} MB, {stall.length:,} bytes; {cost.answer}"


if __name__ == "__main__":
    main(prog_name="python -m tests.fuzz.stalls")
