"""Well-formed image files that cost as much as the limits admit, in three ways.

*Metadata*: more pieces than any picture has. *Pixels*: as many as admitted, in the slowest format and coding.
*Repetition*: the same data, read again and again. All are made by hand, in less time than reading them takes.
"""

from tests.heavy.files import FILES, HEAVIEST, HeavyFile

__all__ = ["FILES", "HEAVIEST", "HeavyFile"]
