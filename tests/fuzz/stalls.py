"""Look for files that stall decoding: ``python -m tests.fuzz.stalls --seconds 120``. The files stay in build/fuzz.

Takes ordinary small files apart and lets one structure of each grow. A file that takes more time or memory than an
ordinary file of its length is a suspect. A suspect grows to the longest admitted file, and is decoded as the server
decodes: it is a stall if that takes longer than ``MOST_S`` or more memory than ``MOST_MB``.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import re
import resource
import sys
import time
import warnings
from pathlib import Path

import click

from inference_export.base_set.decoding import UndecodableImageError, decode_pixels
from tests.fuzz.moves import Growth, grow
from tests.fuzz.structure import seeds
from tests.heavy.measure import measure

FOUND = Path("build/fuzz")
SEED = 12
SIDE = 32
# More than any ordinary file costs: a photograph takes 20 ms/MB, and twice its length besides its pixels.
ORDINARY_S, ORDINARY_S_PER_MB = 0.05, 0.1
ORDINARY_MB, ORDINARY_MB_PER_MB = 40.0, 6.0
SUSPECTED_BYTES = 2**19
LONGEST_BYTES = (60 * 2**20, 2**21)  # a shorter file may be accepted where a longer one is not
MOST_S, MOST_MB = 5.0, 1000.0  # most that any file may cost: a little more than its budget
_LIMIT_S = 1  # time for decoding a possible suspect


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", type=click.FloatRange(min=1), default=120, show_default=True, help="How long.")
def main(seconds: float) -> None:
    """Look for files that stall decoding, and print their structures.

    Exit status: 0 if no file stalls decoding; 1 otherwise.
    """
    warnings.simplefilter("ignore")  # Pillow warns of damaged metadata
    FOUND.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    suspects = _suspects(began_s + seconds / 2)
    stalls, confirmed = 0, 0
    for growth in suspects:
        if time.monotonic() > began_s + seconds:
            break
        confirmed += 1
        stalls += _is_stall(growth)
    click.echo(f"{confirmed} of {len(suspects)} suspects decoded as the server does; {stalls} stalls, in {FOUND}")
    sys.exit(bool(stalls))


def _suspects(ends_s: float) -> list[Growth]:
    """Find suspects. The worst one of each format and way of growing comes first, then the next ones."""
    chance = random.Random(SEED)
    files = seeds()
    kinds = sorted({kind for kind, _ in files})
    excess: dict[tuple[str, str, str], tuple[float, Growth]] = {}
    tried = 0
    while time.monotonic() < ends_s:
        kind = chance.choice(kinds)
        growth = grow(kind, chance.choice([data for of, data in files if of == kind]), chance)
        tried += 1
        times = _excess(growth.build(SUSPECTED_BYTES))
        if times > max(1.0, excess.get(growth[:3], (0.0,))[0]):
            excess[growth[:3]] = times, growth
    click.echo(f"{tried:,} files tried")
    worst = sorted(excess.values(), key=lambda suspect: suspect[0], reverse=True)
    turns: collections.Counter[tuple[str, str]] = collections.Counter()
    ordered = []
    for _, growth in worst:
        ordered.append((turns[growth.kind, growth.way], growth))
        turns[growth.kind, growth.way] += 1
    return [growth for _, growth in sorted(ordered, key=lambda turn: turn[0])]


def _excess(data: bytes) -> float:
    """Return the cost of a file, in time or memory, as a multiple of an ordinary file's of the same length."""
    seconds, memory_mb = _decode_apart(data)
    length_mb = len(data) / 1e6
    return max(
        seconds / (ORDINARY_S + ORDINARY_S_PER_MB * length_mb),
        memory_mb / (ORDINARY_MB + ORDINARY_MB_PER_MB * length_mb),
    )


def _decode_apart(data: bytes) -> tuple[float, float]:
    """Decode in a process of its own. Return the processor time in seconds and the added memory in MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (_LIMIT_S, _LIMIT_S))
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # libtiff's complaints go there
        with contextlib.suppress(UndecodableImageError, MemoryError):
            decode_pixels(data, SIDE)
        os._exit(0)
    _, _, usage = os.wait4(pid, 0)
    return usage.ru_utime + usage.ru_stime, max(0, usage.ru_maxrss - before) / 1e3


def _is_stall(growth: Growth) -> bool:
    name = "-".join(re.findall(r"\w+", " ".join(growth[:3])))
    file = FOUND / f"stall-{name}"
    for size in LONGEST_BYTES:
        data = growth.build(size)
        file.write_bytes(data)
        cost = measure(file, MOST_S)
        if cost.seconds > MOST_S or cost.memory_mb > MOST_MB:
            click.echo(f"stall: {growth}: {len(data):,} bytes, {cost}")
            return True
    file.unlink()
    click.echo(f"no stall: {growth}: {cost}")
    return False


if __name__ == "__main__":
    main(prog_name="python -m tests.fuzz.stalls")
