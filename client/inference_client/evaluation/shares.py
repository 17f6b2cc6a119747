"""Shares of images, and how far they can be trusted."""

import math
from dataclasses import dataclass

Z_95 = 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of images, with its 95 % Wilson score interval.

    Attributes:
        count: Images that count.
        of: Images in all.
        share: ``count / of``; None of no images, as are the interval's ends.
        low: Lower end of the interval, 0 to 1; exactly 0 where none counts.
        high: Upper end; exactly 1 where all count.
    """

    count: int
    of: int
    share: float | None
    low: float | None
    high: float | None


def wilson(count: int, of: int) -> Share:
    """Give a share its 95 % Wilson score interval.

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    >>> share = wilson(9, 10)
    >>> share.share, round(share.low, 3), round(share.high, 3)
    (0.9, 0.596, 0.982)
    """
    if not of:
        return Share(count=count, of=of, share=None, low=None, high=None)
    share = count / of
    center = share + Z_95**2 / (2 * of)
    half = Z_95 * math.sqrt(share * (1 - share) / of + Z_95**2 / (4 * of**2))
    scale = 1 + Z_95**2 / of
    # What these ends are mathematically, and rounding would miss.
    return Share(
        count=count,
        of=of,
        share=share,
        low=(center - half) / scale if count else 0.0,
        high=(center + half) / scale if count < of else 1.0,
    )
