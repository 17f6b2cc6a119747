"""One flat row for each image, with the same columns in CSV and Parquet."""

import re
from collections.abc import Mapping
from typing import Any, Final

# Each column with the type of its values.
COLUMNS: Final[Mapping[str, type]] = {
    "file": str,
    "label": str,
    "probability": float,
    "error": str,
    "note": str,
    "version": int,
    "threshold": float,
    "nearest": str,
    "nearest_similarity": float,
    "matches": int,
}
SCORE_PREFIX = "score:"
# How Python holds a byte of a file name that is not UTF-8.
_UNDECODED_BYTE = re.compile("[\udc80-\udcff]")


def flat_row(file: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Lay an entry out in columns.

    Args:
        file: The image's file, as :func:`safe_text` writes it.
        entry: An entry with the evidence, as ``Classify`` gives it.

    Returns:
        A value for each of ``COLUMNS``, None where there is none, and one for each class's ``score:CLASS``.

    >>> row = flat_row("a.jpg", {"Label": "face", "Probability": 0.9, "Scores": {"face": 0.9}, "Matches": {"face": 2},
    ...                          "Neighbors": [{"Image": "face/1.jpg", "Similarity": 0.9}], "Version": 3,
    ...                          "Threshold": 0.75})
    >>> row["nearest"], row["matches"], row["score:face"], row["note"]
    ('face/1.jpg', 2, 0.9, None)
    """
    nearest: Mapping[str, Any] = next(iter(entry.get("Neighbors", ())), {})
    return {
        "file": file,
        "label": entry["Label"],
        "probability": entry["Probability"],
        "error": entry.get("Error"),
        "note": entry.get("Note"),
        "version": entry.get("Version"),
        "threshold": entry.get("Threshold"),
        "nearest": nearest.get("Image"),
        "nearest_similarity": nearest.get("Similarity"),
        # The unknown label is no class.
        "matches": entry["Matches"].get(entry["Label"], 0) if entry.get("Matches") else None,
        **{f"{SCORE_PREFIX}{name}": score for name, score in entry.get("Scores", {}).items()},
    }


def safe_text(text: str) -> str:
    r"""Write a name that is not valid UTF-8 with escapes, so that every program can read the file.

    >>> safe_text("caf\udce9.jpg"), safe_text("café.jpg")
    ('caf\\xe9.jpg', 'café.jpg')
    """
    escaped = _UNDECODED_BYTE.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text)
    return escaped.encode("utf-8", "backslashreplace").decode("utf-8")
