"""Held-out accuracy: ``Classify`` classifies the query images, and the labels are compared with the true classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.demonstration.errors import DemonstrationError
from inference_client import Classify
from inference_client.command_line.formatting import table_lines
from inference_export.regular_files import FileReader
from inference_export.resources.checkpoints import select_checkpoint
from inference_export.resources.trained import locate

ACCURACY_GOAL = 0.95


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The server's answer for a query image, and the image's true class.

    Attributes:
        file: Name of the image file.
        label: The server's label; None if the server could not classify the image.
        probability: Probability of the label, or None.
        neighbor: ``class/file`` of the most similar base image; None in classification mode.
        similarity: Cosine similarity of that base image, -1 to 1, or None.
        truth: Name of the true class.
    """

    file: str
    label: str | None
    probability: float | None
    neighbor: str | None
    similarity: float | None
    truth: str

    @property
    def is_right(self) -> bool:
        """Whether the label is the true class."""
        return self.label == self.truth


def classify_queries(url: str, files: Sequence[Path]) -> list[Answer]:
    """Classify image files whose folders are named after their classes.

    Args:
        url: The server's ``http://host:port``.
        files: Query images.

    Returns:
        An answer for each file, in order.

    Raises:
        DemonstrationError: The server classified no image.
    """
    with Classify(url, details=True) as target_server:
        results, status_code = target_server([str(file) for file in files])
    if isinstance(results, dict):
        raise DemonstrationError(f"the server classified no image (status {status_code}): {results['error']}")
    return [_read_answer(file, result) for file, result in zip(files, results, strict=True)]


def format_answers(answers: Sequence[Answer]) -> str:
    """Format answers as a table with one line per answer; wrong answers are marked."""
    show_neighbors = any(answer.neighbor is not None for answer in answers)
    rows = [("file", "label", "probability", *(["nearest base image"] if show_neighbors else []), "truth")]
    for answer in answers:
        neighbor = "-" if answer.neighbor is None else f"{answer.neighbor} ({answer.similarity:.4f})"
        rows.append(
            (
                answer.file,
                answer.label or "-",
                "-" if answer.probability is None else f"{answer.probability:.4f}",
                *([neighbor] if show_neighbors else []),
                answer.truth if answer.is_right else f"{answer.truth}  <- wrong",
            )
        )
    return "\n".join(table_lines(rows))


def format_accuracy(right: int, total: int) -> str:
    """Format the accuracy, the demonstration's last line.

    >>> format_accuracy(59, 60)
    'held-out accuracy: 0.983 (59 of 60)'
    """
    return f"held-out accuracy: {right / total:.3f} ({right} of {total})"


def explain_shortfall(resources: Path, mode: str) -> str:
    """Explain why the accuracy may be below the goal, and what to do.

    Args:
        resources: The trained resources that were served.
        mode: The mode of the export.

    Returns:
        An error message: the validation result of the served checkpoint, and how to train again.
    """
    checkpoint = select_checkpoint(locate(resources), mode, FileReader())
    return (
        f"the held-out accuracy is below {ACCURACY_GOAL}: the network does worse on new images than it should.\n"
        f"  {checkpoint.path.name} was served: {checkpoint.reason}. With so few base images, "
        f"validation can miss a weak network.\n"
        f"  To train again, remove {resources}. The same machine may arrive at the same weights; to get others, change "
        f"the seed in examples/demonstration/settings.py."
    )


def _read_answer(file: Path, result: dict[str, Any]) -> Answer:
    nearest: dict[str, Any] = next(iter(result.get("Neighbors", [])), {})
    return Answer(
        file=file.name,
        label=result["Label"],
        probability=result["Probability"],
        neighbor=nearest.get("Image"),
        similarity=nearest.get("Similarity"),
        truth=file.parent.name,
    )
