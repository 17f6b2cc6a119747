"""Fuzz: ``python -m tests.fuzz [libFuzzer options]``. The files found, including crashes, stay in build/fuzz.

Copy files worth keeping into ``corpus`` by hand: small ones, each of which reaches other code.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["PIL", "pillow_heif"]):
    importlib.import_module("pillow_heif")
    for image_format in ("Avif", "Bmp", "Gif", "Jpeg", "Mpo", "Png", "Tiff", "WebP"):
        importlib.import_module(f"PIL.{image_format}ImagePlugin")

from tests.corpus import FORMATS, encode, photograph
from tests.fuzz.decode import check_decoding
from tests.fuzz.structure import seeds
from tests.heavy.boxes import AVIF, HEIF

FOUND = Path("build/fuzz/corpus")
KEPT = Path(__file__).parent / "corpus"
CRASHES = Path("build/fuzz/crash-")


def main() -> None:
    """Fuzz until libFuzzer's options end it."""
    warnings.simplefilter("ignore")
    FOUND.mkdir(parents=True, exist_ok=True)
    for kind in FORMATS:
        (FOUND / f"seed-{kind}").write_bytes(encode(photograph().resize((16, 12)), kind))
    for kind, data in seeds():
        if kind in (AVIF, HEIF):
            (FOUND / f"seed-{kind}-{len(data)}").write_bytes(data)
    options = [f"-artifact_prefix={CRASHES}", "-max_len=4096", "-timeout=10", *sys.argv[1:]]
    folders = [str(FOUND), str(KEPT)]  # libFuzzer adds files to the first folder
    atheris.Setup([sys.argv[0], *options, *folders], atheris.instrument_func(check_decoding))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
