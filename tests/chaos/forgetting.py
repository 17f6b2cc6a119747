"""Images that are forgotten: under load, and by commands that are killed at random moments."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_client import Classify
from inference_export.repository.contents import read_contents
from inference_server.supervision.shared_memory import FOLDER
from inference_server.triton.access import access_file
from tests.base_set.searching import find_bytes
from tests.chaos.crashes import shared_memory_prefix
from tests.chaos.load import Load, expected_answers
from tests.chaos.reloads import BEFORE_S, CLIENTS, PAUSE_S, run_command
from tests.chaos.tally import Tally
from tests.watched import WatchedServer

_EARLIEST, _LATEST = 0.3, 1.05  # of a whole command's time; before that, Python starts


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    """An image that comes into a base set, and is forgotten.

    Attributes:
        repository: The model repository.
        data: The base data.
        cache: Folder of cached embeddings.
        image: The image file.
        class_name: The class that it comes into.
    """

    repository: Path
    data: Path
    cache: Path
    image: Path
    class_name: str

    @property
    def name(self) -> str:
        return f"{self.class_name}/{self.image.name}"

    def command(self, *arguments: object) -> list[str]:
        return [*map(str, arguments), "--model_repository", str(self.repository), "-data", str(self.data), "--cache",
                str(self.cache)]  # fmt: skip

    def add(self) -> dict[str, bytes]:
        """Make the image a base image, and return what is to be found nowhere afterwards."""
        self.run("add", self.class_name, self.image)
        base = read_contents(self.repository).base
        assert base is not None
        content = hashlib.sha256(self.image.read_bytes())
        row = base.embeddings[base.names().index(self.name)].tobytes()
        return {"name": self.name.encode(), "hash": content.digest(), "hex": content.hexdigest().encode(), "row": row}

    def forget(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("forget", self.name, "--json"))
        return found

    def run(self, *arguments: object) -> str:
        done = run_command("base-set", *self.command(*arguments))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def find(self, needles: Mapping[str, bytes], *more: Path) -> dict[str, list[str]]:
        """Search all places for what is to be found nowhere."""
        parent = self.repository.parent
        places = [self.repository, self.cache, self.data, *parent.glob(f".{self.repository.name}*"),
                  parent / f"{self.repository.name}.previous", *more]  # fmt: skip
        return find_bytes(places, needles)

    def kill_forgetting(self, after_s: float) -> str:
        """Kill a command that forgets the image, look at what it leaves, and run it again.

        Returns:
            What the killed command had done with the base set: ``old``, ``new`` or ``gone`` everywhere.
        """
        needles = self.add()
        base = read_contents(self.repository).base
        before = set(base.names() if base else ())
        script = str(Path(sys.executable).with_name("base-set"))
        with subprocess.Popen(
            [script, *self.command("forget", self.name)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(after_s)
            process.kill()
        left = read_contents(self.repository).base  # which also checks that its files belong together
        names = set(left.names() if left else ())
        assert names in (before, before - {self.name})
        again = run_command("base-set", *self.command("forget", self.name))
        is_gone = again.returncode == 1 and "nothing is known of" in again.stderr
        assert again.returncode == 0 or is_gone, again.stderr
        assert self.find(needles) == {}
        assert not list(self.repository.parent.glob(f".{self.repository.name}*"))
        return "gone" if is_gone else "old" if names == before else "new"


def forget_under_load(
    server: WatchedServer, repository: Path, base: Path, images: Sequence[Path], *, times: int
) -> Tally:
    """Add an image to the base set and forget it, again and again, under load; every byte is searched afterwards.

    Args:
        server: Serves the repository.
        repository: The repository.
        base: The base images that it was exported with. They are copied.
        images: The query images. The first one becomes a base image, and no client sends it.
        times: Number of times.
    """
    tally = Tally(what="base-set: forget", times=times)
    withdrawal = prepare(repository, base, images[0])
    queries = images[1:]
    took_s = []
    with Load(server.url, [expected_answers(server.url, queries)], tally, clients=CLIENTS, pause_s=PAUSE_S) as load:
        time.sleep(BEFORE_S)
        for number in range(times):
            needles = withdrawal.add()
            if not number:
                load.expected.append(expected_answers(server.url, queries))
            with Classify(server.url, details=True) as classify:
                results, _ = classify(images[0])
            assert results[0]["Neighbors"][0]["Image"] == withdrawal.name
            began_s = time.monotonic()
            found = withdrawal.forget()
            took_s.append(time.monotonic() - began_s)
            assert found["servers"] == [server.port]
            regions = FOLDER.glob(f"{shared_memory_prefix(server.tritonserver())}*")
            assert withdrawal.find(needles, access_file(server.port), *regions) == {}
    assert "replaced in" not in server.said()
    tally.notes += [f"a command took {max(took_s):.1f} s at most", *load.failures[:3]]
    return tally


def kill_forgets(server: WatchedServer, repository: Path, base: Path, images: Sequence[Path], *, times: int) -> Tally:
    """Kill commands that forget an image at random moments, under load; each is run again.

    Arguments are those of ``forget_under_load``.
    """
    tally = Tally(what="base-set: forget, killed at a random moment", times=times)
    withdrawal = prepare(repository, base, images[0])
    queries = images[1:]
    with Load(server.url, [expected_answers(server.url, queries)], tally, clients=CLIENTS, pause_s=PAUSE_S) as load:
        withdrawal.add()
        load.expected.append(expected_answers(server.url, queries))
        tally.notes += [_kill_again_and_again(withdrawal, times), *load.failures[:3]]
    return tally


def kill_without_server(withdrawal: Withdrawal, *, times: int) -> Tally:
    """Do the same without a server; the images of the base sets that are left count as sent and right."""
    tally = Tally(what="base-set: forget without a server, killed at a random moment", times=times)
    withdrawal.add()
    tally.notes.append(_kill_again_and_again(withdrawal, times))
    base = read_contents(withdrawal.repository).base
    tally.sent = tally.right = times * len(base.names() if base else ())
    return tally


def _kill_again_and_again(withdrawal: Withdrawal, times: int) -> str:
    began_s = time.monotonic()
    withdrawal.forget()
    whole_s = time.monotonic() - began_s
    chance = random.Random(times)
    left = [withdrawal.kill_forgetting(whole_s * chance.uniform(_EARLIEST, _LATEST)) for _ in range(times)]
    counts = ", ".join(f"{what} {left.count(what)} times" for what in ("old", "new", "gone"))
    return f"a killed command left the base set {counts}"


def prepare(repository: Path, base: Path, image: Path) -> Withdrawal:
    """Copy the base images of a repository, and let an image be the one that comes and is forgotten."""
    data = Path(shutil.copytree(base, repository.with_name(f"{repository.name}-base"), dirs_exist_ok=True))
    return Withdrawal(
        repository=repository,
        data=data,
        cache=repository.with_name(f"{repository.name}-cache"),
        image=image,
        class_name=min(folder.name for folder in data.iterdir() if not folder.name.startswith(".")),
    )
