"""Well-formed image files that cost as much as files within the limits can, in three ways.

*Metadata*: more pieces than any picture has. *Pixels*: as many as are allowed, in the format and the coding that takes
longest. *Repetition*: the same data, read again and again. Made by hand, in less time than it takes to read them.
"""

from tests.heavy.files import FILES, HEAVIEST, HeavyFile

__all__ = ["FILES", "HEAVIEST", "HeavyFile"]
