"""Files that the fuzzer found are decoded or refused, as any file must be."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tests.fuzz.decode import check_decoding

CORPUS = sorted((Path(__file__).parent / "fuzz" / "corpus").iterdir())


def test_corpus_is_there_and_small() -> None:
    assert len(CORPUS) > 20
    assert sum(file.stat().st_size for file in CORPUS) < 200_000


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name[:12])
def test_found_file_is_decoded_or_refused(file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of damaged metadata
        check_decoding(file.read_bytes())
