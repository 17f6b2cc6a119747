"""Decode one file as the server does: ``python -m tests.heavy.decode FILE`` prints the cost as JSON."""

from __future__ import annotations

import json
import os
import resource
import sys
import warnings
from pathlib import Path

from inference_export.base_set.decoding import open_decoder
from tests.corpus import encode, photograph
from tests.heavy.family import family_seconds

SIDE = 384
MOST_ADDRESS_SPACE_BYTES = 6 * 2**30


def main() -> None:
    """Decode the file after another one, which pays for imports and starts."""
    warnings.simplefilter("ignore")  # Pillow warns of damaged metadata
    resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESS_SPACE_BYTES, resource.RLIM_INFINITY))
    decoder = open_decoder(SIDE, "exact")
    decoder.decode([encode(photograph(), "JPEG")])
    data = Path(sys.argv[1]).read_bytes()
    before_s = family_seconds(os.getpid())
    reasons = decoder.decode([data]).reasons
    print(json.dumps({"seconds": family_seconds(os.getpid()) - before_s, "answer": reasons[0] or "decoded"}))


if __name__ == "__main__":
    main()
