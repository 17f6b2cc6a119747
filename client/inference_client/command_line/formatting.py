"""Text for people: tables, the first few of many names, and names that are safe to show."""

import unicodedata
from collections.abc import Iterator, Sequence

COLUMN_GAP = "  "
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Control, format (such as those that change the direction of writing), surrogate, private-use, and line separators.
UNPRINTABLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
# A spreadsheet reads a formula after any of these, even after spaces and in East Asian full-width and small forms.
FORMULA_SIGNS = ("=", "+", "-", "@")


def table_lines(rows: Sequence[Sequence[str]], *, indent: str = "") -> Iterator[str]:
    """Lay rows out in left-aligned columns.

    A row may have fewer cells than the others. Its last cell then extends over the columns that follow.

    Args:
        rows: The cells of each line, headings first.
        indent: Put before every line.

    Yields:
        One line for each row.

    >>> for line in table_lines([("file", "label", "probability"), ("a.jpg", "face", "0.9"), ("b.jpg", "no result")]):
    ...     print(line)
    file   label  probability
    a.jpg  face   0.9
    b.jpg  no result
    """
    widths: dict[int, int] = {}
    for row in rows:
        for column, cell in enumerate(row[:-1]):
            widths[column] = max(widths.get(column, 0), len(cell))
    for row in rows:
        padded = [cell.ljust(widths.get(column, 0)) for column, cell in enumerate(row)]
        yield f"{indent}{COLUMN_GAP.join([*padded[:-1], row[-1]])}".rstrip()


def first_few(names: Sequence[str], shown: int = 3, *, separator: str = ", ") -> str:
    r"""Name the first few of many things and count the rest.

    Args:
        names: All names.
        shown: Number of names to show.
        separator: Text between two names; a line break gives one name a line.

    >>> first_few(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    >>> first_few(["a", "b", "c"], shown=2, separator="\n")
    'a\nb\nand 1 more'
    """
    text = separator.join(names[:shown])
    more = len(names) - shown
    return f"{text}{separator.lstrip(',')}and {more:,} more" if more > 0 else text


def printable(name: str) -> str:
    r"""Replace characters that are invisible or that change how the rest looks.

    >>> printable("a\x1b[31mb\u202egpj")
    'a�[31mb�gpj'
    """
    return "".join(
        REPLACEMENT if unicodedata.category(character) in UNPRINTABLE_CATEGORIES else character for character in name
    )


def is_formula(text: str) -> bool:
    """Say whether a spreadsheet would read text as a formula."""
    return unicodedata.normalize("NFKC", text.lstrip()[:1]).startswith(FORMULA_SIGNS)


def spreadsheet_text(text: str) -> str:
    """Make text safe for a spreadsheet: after an apostrophe, nothing is read as a formula.

    >>> spreadsheet_text("=1+1/a.jpg"), spreadsheet_text("  @a.jpg"), spreadsheet_text("a.jpg")
    ("'=1+1/a.jpg", "'  @a.jpg", 'a.jpg')
    """
    return f"'{text}" if is_formula(text) else text
