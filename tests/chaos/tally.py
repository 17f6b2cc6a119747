"""What became of the images that were sent while something bad was done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields


@dataclass(kw_only=True)
class Tally:
    """One row of the table.

    Args:
        what: What was done.
        times: How often.
        sent: Images sent.
        right: Answered as expected: the right label and probability, or the right reason.
        retried: Requests that the client sent again by itself.
        refused: Images of requests that got a clear refusal.
        wrong: Answered otherwise than expected.
        lost: Without a result although the service was back within the timeout.
        hung: Of calls that had not returned by their timeout and a second.
        slowest_s: How long the slowest call took of a client that did nothing bad; 0 where there was none.
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
        """Whether nothing was answered wrongly, lost, or hung, and anything was asked at all."""
        return self.sent > 0 and not (self.wrong or self.lost or self.hung)


COLUMNS = tuple(each.name for each in fields(Tally) if each.name not in {"slowest_s", "notes"})


def format_table(tallies: Sequence[Tally]) -> str:
    """Lay rows out, and their notes below."""
    rows = [COLUMNS, *(tuple(str(getattr(tally, name)) for name in COLUMNS) for tally in tallies)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    notes = [f"{tally.what}: {note}" for tally in tallies for note in _notes(tally)]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _notes(tally: Tally) -> list[str]:
    slowest = [f"slowest answer of an innocent client {tally.slowest_s:.2f} s"] if tally.slowest_s else []
    return [*slowest, *tally.notes]
