"""The corpus of hostile files through a real server, with valid images between them."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Sequence
from typing import Any

import psutil

from inference_client import Classify
from inference_export.base_set.decoding import UndecodableImageError, decode_pixels
from tests.chaos.load import Expected, is_right
from tests.chaos.tally import Tally
from tests.corpus import hostile_files
from tests.heavy.family import family_mb

BATCH = 14
LEAK = re.compile(r"/|0x[0-9a-f]|\bat \w+>|object")
MOST_GROWTH_MB = 100.0
WARM_UP = 20  # batches, after which a process has all the memory that it keeps


def send_corpus(
    url: str, expected: Expected, image_size: int, preprocess: Sequence[psutil.Process], every: int = 1
) -> Tally:
    """Send the corpus, in batches with valid images, and alone.

    Args:
        url: The server's URL.
        expected: Right answers for valid images.
        image_size: Side S of the network's images.
        preprocess: The processes that decode, by themselves or in child processes.
        every: Send only every so-many-th file.
    """
    files = list(hostile_files())[::every]
    tally = Tally(what="hostile and broken images", times=len(files))
    valid = itertools.cycle(expected)
    warm_mb, most_mb = 0.0, 0.0
    with Classify(url, timeout_s=60) as classify:
        for number, start in enumerate(range(0, len(files), BATCH)):
            bad = files[start : start + BATCH]
            good = [next(valid), next(valid)]
            results: Any
            results, status = classify([good[0], *(data for _, data in bad), good[1]])
            assert status in {200, 207}, results
            _count(tally, bad, results[1:-1], image_size)
            for image, entry in zip(good, (results[0], results[-1]), strict=True):
                tally.sent += 1
                right = is_right(entry, expected[image])
                tally.right += right
                tally.wrong += not right
            name, data = bad[number % len(bad)]
            alone, status = classify(data)
            assert status in {200, 400}, (name, alone)
            _count(tally, [(name, data)], alone, image_size)
            used_mb = family_mb(*(process.pid for process in preprocess))
            warm_mb = max(warm_mb, used_mb) if number < WARM_UP else warm_mb
            most_mb = max(most_mb, used_mb)
    tally.notes.append(f"memory of preprocess: {warm_mb:.0f} MB after {WARM_UP} requests, {most_mb:.0f} MB at most")
    assert most_mb - warm_mb <= MOST_GROWTH_MB, tally.notes
    return tally


def _count(tally: Tally, files: Sequence[tuple[str, bytes]], entries: Any, image_size: int) -> None:
    for (name, data), entry in zip(files, entries, strict=True):
        tally.sent += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of damaged metadata
                decode_pixels(data, image_size)
        except UndecodableImageError as error:
            right = entry["Label"] is None and entry.get("Error") == str(error) and not LEAK.search(str(error))
        else:
            right = entry["Label"] is not None
        tally.right += right
        tally.wrong += not right
        if not right:
            tally.notes.append(f"{name}: {entry}")
