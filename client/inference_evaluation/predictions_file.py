"""The CSV file of all predictions."""

import csv
from collections.abc import Sequence
from pathlib import Path

from inference_client.command_line.formatting import printable, spreadsheet_text
from inference_evaluation.predictions import Prediction

COLUMNS = ("file", "truth", "label", "probability", "right", "error", "nearest", "nearest_similarity")


def write_predictions(file: Path, predictions: Sequence[Prediction], classes: Sequence[str]) -> None:
    """Write one line for each image.

    Args:
        file: The file to write, UTF-8.
        predictions: All predictions.
        classes: The server's classes. Each gets a column ``score:CLASS`` and, in clustering mode, ``matches:CLASS``.
    """
    with_matches = any(prediction.matches for prediction in predictions)
    kinds = ("score", "matches") if with_matches else ("score",)
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow([*COLUMNS, *(_cell(f"{kind}:{name}") for kind in kinds for name in classes)])
        for prediction in predictions:
            nearest, similarity = prediction.neighbors[0] if prediction.neighbors else ("", "")
            answered = prediction.error is None
            writer.writerow(
                [
                    _cell(prediction.image.name),
                    _cell(prediction.image.truth),
                    _cell(prediction.label),
                    prediction.probability if answered else "",
                    int(prediction.is_right) if answered else "",
                    _cell(prediction.error or ""),
                    _cell(nearest),
                    similarity,
                    *(prediction.scores.get(name, "") for name in classes),
                    *(prediction.matches.get(name, "") for name in classes if with_matches),
                ]
            )


def _cell(text: str) -> str:
    return spreadsheet_text(printable(text))
