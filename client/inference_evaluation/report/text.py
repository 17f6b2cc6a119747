"""Figures as text, for the page and the terminal."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from inference_client.command_line.formatting import first_few, printable
from inference_evaluation.figures import NEAR_COPY_SIMILARITY, Figures
from inference_evaluation.shares import Share
from inference_evaluation.thresholds import LOWEST_OFFERED

if TYPE_CHECKING:
    from jinja2 import Environment

NOT_DEFINED = "not defined"


def say(subject: str, figures: Figures) -> Sequence[str]:
    """Say in sentences what the figures show.

    Args:
        subject: Name of a macro in ``sentences.txt.j2``.
        figures: The figures.

    Returns:
        One sentence or remark per item.
    """
    macro: Callable[[Figures], str] = getattr(make_environment().get_template("sentences.txt.j2").module, subject)
    return [line for line in macro(figures).split("\n") if line]


@cache
def make_environment(*, html: bool = False) -> "Environment":
    """Make the environment of this package's templates.

    Args:
        html: Whether the templates are HTML. If so, values are escaped and misleading characters are replaced.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def replace_unprintable(value: object) -> object:
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=html,  # noqa: S701 - the other template is plain text
        finalize=replace_unprintable if html else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "percent": percent,
        "figure": figure,
        "count": count,
        "number": "{:,}".format,
        "interval": interval,
        "first_few": first_few,
        "printable": printable,
    }
    environment.filters.update(filters)
    environment.globals.update(near_copy_similarity=NEAR_COPY_SIMILARITY, lowest_offered=LOWEST_OFFERED)
    return environment


def percent(share: float | None) -> str:
    """Write a share in percent.

    >>> percent(0.98333).split(), percent(1.0).split(), percent(None)
    (['98.3', '%'], ['100', '%'], 'not defined')
    """
    if share is None:
        return NOT_DEFINED
    if share in {0, 1}:
        return f"{share:.0%}".replace("%", "\N{NO-BREAK SPACE}%")
    # Rounding must not give 0 % or 100 %.
    return f"{min(99.9, max(0.1, 100 * share)):.1f}\N{NO-BREAK SPACE}%"


def figure(value: float | None, digits: int = 3) -> str:
    """Write a figure.

    >>> figure(0.5), figure(None)
    ('0.500', 'not defined')
    """
    return NOT_DEFINED if value is None else f"{value:.{digits}f}"


def count(number: int, noun: str) -> str:
    """Write a number of things.

    >>> count(1, "image"), count(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def interval(share: Share) -> str:
    """Write a share's 95 % interval."""
    return f"{percent(share.low)} to {percent(share.high)}" if share.of else "no images"


def evidence(matches: dict[str, int], label: str, truth: str) -> str:
    """Write each class's number of matches, and what decided the label if the number of matches did not.

    >>> evidence({"a": 1, "b": 1, "c": 0}, label="a", truth="b")
    'matches: a 1, b 1; similarity decided the tie'
    >>> evidence({"a": 0, "b": 0}, label="a", truth="b")
    'no match; the nearest base image decided'
    """
    if not matches:
        return ""
    most = max(matches.values())
    if not most:
        return "no match; the nearest base image decided"
    named = [name for name in dict.fromkeys([label, truth]) if name in matches]
    others = [name for name in sorted(matches, key=lambda name: -matches[name]) if matches[name] and name not in named]
    counts = [f"{name} {matches[name]:,}" for name in [*named, *others]]
    tie = "; similarity decided the tie" if list(matches.values()).count(most) > 1 else ""
    return f"matches: {first_few(counts, len(named) + 3)}{tie}"
