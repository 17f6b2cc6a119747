"""The images, built from the files as they are, and tried as the page says."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator

from inference_client.version import __version__
from tests.chaos.load import Load, expected_answers
from tests.chaos.tally import Tally
from tests.containers.place import Place

IMAGE = f"classify-triton:{__version__}"
_WRITABLE = "classify-writable"


def build(place: Place) -> Iterator[Tally]:
    """Export, build NVIDIA's image with our server in it, run it as the page does, and ask its health check."""
    tally = Tally(what="docker run", times=1)
    began_s = time.monotonic()
    place.containers.run_until("--check")
    tally.notes.append(f"exported, built, started and checked in {time.monotonic() - began_s:.0f} s")
    yield tally
    yield _change_base_set(place)


def _change_base_set(place: Place) -> Tally:
    """The server takes up a change that is made inside of its container, where no pip's Triton is."""
    tally = Tally(what="base-set in NVIDIA's image", times=1)
    folder = place.clone / "writable"  # mounted as a whole: a change is prepared beside the repository
    shutil.copytree(place.clone / "exports" / "export-1", folder / "export-1")
    subprocess.run(["chown", "-R", "1000:1000", folder], check=True)
    docker = place.engine.docker
    docker("run", "--detach", "--name", _WRITABLE, "--shm-size", "512m", "--volume", f"{folder}:/exports", IMAGE,
           "--model_repository=/exports/export-1", "--host=0.0.0.0")  # fmt: skip
    place.engine.wait_until_healthy(_WRITABLE)
    url = f"http://{place.engine.address(_WRITABLE)}:8080"
    with Load(url, [expected_answers(url, place.setting.images)], tally, clients=2, pause_s=0.05) as load:
        said = docker("exec", _WRITABLE, "base-set", "set", "-thres", "0.8", "--model_repository", "/exports/export-1")
        load.expected.append(expected_answers(url, place.setting.images))
    assert "served now by inference-server" in said, said
    tally.notes += load.failures[:3]
    docker("rm", "--force", _WRITABLE)
    return tally


def sizes(place: Place) -> list[str]:
    """List our images with their sizes."""
    listed = place.engine.docker("images", "--format", "{{.Repository}}:{{.Tag}} {{.Size}}").splitlines()
    return sorted(line for line in listed if line.startswith("classify-triton:"))
