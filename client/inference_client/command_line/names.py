"""Names of files and classes, which may hold anything, as they are shown."""

import unicodedata

# What spreadsheets take for the beginning of a formula, also after spaces, and in East Asia's wide and small forms.
FORMULA_BEGINS = ("=", "+", "-", "@")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Control, format (such as those that turn the direction of writing), surrogate, private, and line separators.
UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def printable(name: str) -> str:
    r"""Replace what would not be seen, or would change how the rest is seen.

    >>> printable("a\x1b[31mb\u202egpj")
    'a�[31mb�gpj'
    """
    return "".join(REPLACEMENT if unicodedata.category(each) in UNPRINTABLE else each for each in name)


def cell(name: str) -> str:
    """Make a name safe to open in a spreadsheet: one that would be a formula gets an apostrophe before it.

    >>> cell("=1+1/a.jpg"), cell("  @a.jpg")
    ("'=1+1/a.jpg", "'  @a.jpg")
    """
    text = printable(name)
    begins = unicodedata.normalize("NFKC", text.lstrip()[:1])
    return f"'{text}" if begins.startswith(FORMULA_BEGINS) else text
