"""The CSV of every prediction."""

import csv
from collections.abc import Sequence
from pathlib import Path

from inference_client.command_line.names import cell
from inference_evaluation.asking import Prediction
from inference_evaluation.figures import is_right

COLUMNS = ("file", "truth", "label", "probability", "right", "error", "nearest", "nearest_similarity")


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
        writer.writerow([*COLUMNS, *(cell(f"{kind}:{name}") for kind in kinds for name in classes)])
        for each in predictions:
            nearest, similarity = each.neighbors[0] if each.neighbors else ("", None)
            answered = each.error is None
            writer.writerow(
                [
                    cell(each.image.name),
                    cell(each.image.truth),
                    cell(each.label),
                    each.probability if answered else "",
                    int(is_right(each)) if answered else "",
                    cell(each.error or ""),
                    cell(nearest),
                    "" if similarity is None else similarity,
                    *(each.scores.get(name, "") for name in classes),
                    *(each.matches.get(name, "") for name in classes if with_matches),
                ]
            )
