"""The fate of the images that were sent during a scenario."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields


@dataclass(kw_only=True)
class Tally:
    """One row of the table.

    Attributes:
        what: The scenario.
        times: Number of times.
        sent: Images sent.
        right: Images with the expected label and probability, or the expected reason.
        retried: Requests that the client retried.
        refused: Images of requests that got a clear refusal.
        wrong: Images with another answer.
        lost: Images without a result although the service was back within the timeout.
        hung: Images of calls that had not returned a second after their timeout.
        slowest_s: Time of the slowest call of a well-behaved client; 0 without such a client.
        notes: Figures beside the counts.
    """

    what: str
    times: int = 0
    sent: int = 0
    right: int = 0
    retried: int = 0
    refused: int = 0
    wrong: int = 0
    lost: int = 0
    hung: int = 0
    slowest_s: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether no image was answered wrongly, lost or hung, and any image was sent."""
        return self.sent > 0 and not (self.wrong or self.lost or self.hung)


COLUMNS = tuple(column.name for column in fields(Tally) if column.name not in {"slowest_s", "notes"})


def format_table(tallies: Sequence[Tally]) -> str:
    """Lay the rows out as a table, with their notes below."""
    rows = [COLUMNS, *(tuple(str(getattr(tally, name)) for name in COLUMNS) for tally in tallies)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    notes = [f"{tally.what}: {note}" for tally in tallies for note in _notes(tally)]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _notes(tally: Tally) -> list[str]:
    slowest = [f"slowest answer of an innocent client {tally.slowest_s:.2f} s"] if tally.slowest_s else []
    return [*slowest, *tally.notes]
