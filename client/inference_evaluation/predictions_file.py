"""The CSV of every prediction."""

import csv
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from inference_client.command_line.formatting import printable
from inference_evaluation.asking import Prediction
from inference_evaluation.figures import is_right

COLUMNS = ("file", "truth", "label", "probability", "right", "error", "nearest", "nearest_similarity")
# What spreadsheets read as the start of a formula, even after spaces and in East Asian full-width and small forms.
FORMULA_SIGNS = ("=", "+", "-", "@")


def write_predictions(file: Path, predictions: Sequence[Prediction], classes: Sequence[str]) -> None:
    """Write one line for each image.

    Args:
        file: Is written; UTF-8.
        predictions: Every one.
        classes: Each gets a column ``score:CLASS``, and in clustering mode ``matches:CLASS``.
    """
    with_matches = any(each.matches for each in predictions)
    kinds = ("score", "matches") if with_matches else ("score",)
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow([*COLUMNS, *(_cell(f"{kind}:{name}") for kind in kinds for name in classes)])
        for each in predictions:
            nearest, similarity = each.neighbors[0] if each.neighbors else ("", None)
            answered = each.error is None
            writer.writerow(
                [
                    _cell(each.image.name),
                    _cell(each.image.truth),
                    _cell(each.label),
                    each.probability if answered else "",
                    int(is_right(each)) if answered else "",
                    _cell(each.error or ""),
                    _cell(nearest),
                    "" if similarity is None else similarity,
                    *(each.scores.get(name, "") for name in classes),
                    *(each.matches.get(name, "") for name in classes if with_matches),
                ]
            )


def _cell(text: str) -> str:
    """Make text safe to open in a spreadsheet: an apostrophe keeps it from being read as a formula.

    >>> _cell("=1+1/a.jpg"), _cell("  @a.jpg")
    ("'=1+1/a.jpg", "'  @a.jpg")
    """
    text = printable(text)
    first = unicodedata.normalize("NFKC", text.lstrip()[:1])
    return f"'{text}" if first.startswith(FORMULA_SIGNS) else text
