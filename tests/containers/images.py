"""The images, built from the files as they are, and tried as the page says."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.chaos.tally import Tally
from tests.containers.place import Place


def build(place: Place) -> Iterator[Tally]:
    """Export, build NVIDIA's image with our server in it, run it as the page does, and ask its health check."""
    tally = Tally(what="docker run", times=1)
    began_s = time.monotonic()
    place.containers.run_until("--check")
    tally.notes.append(f"exported, built, started and checked in {time.monotonic() - began_s:.0f} s")
    yield tally


def sizes(place: Place) -> list[str]:
    """List our images with their sizes."""
    listed = place.engine.docker("images", "--format", "{{.Repository}}:{{.Tag}} {{.Size}}").splitlines()
    return sorted(line for line in listed if line.startswith("classify-triton:"))
