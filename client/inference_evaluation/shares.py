"""Shares of images with confidence intervals."""

from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of images, with its 95 % Wilson score interval.

    Attributes:
        count: Images that count.
        of: All images.
        share: ``count / of``; None if there are no images, as for both ends of the interval.
        low: Lower end of the interval, 0 to 1; exactly 0 if no image counts.
        high: Upper end; exactly 1 if all images count.
    """

    count: int
    of: int
    share: float | None
    low: float | None
    high: float | None


def wilson(count: int, of: int) -> Share:
    """Compute a share and its 95 % Wilson score interval.

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    >>> share = wilson(9, 10)
    >>> share.share, round(share.low, 3), round(share.high, 3)
    (0.9, 0.596, 0.982)
    """
    if not of:
        return Share(count=count, of=of, share=None, low=None, high=None)
    from scipy.stats import binomtest

    interval = binomtest(count, of).proportion_ci(CONFIDENCE, method="wilson")
    return Share(count=count, of=of, share=count / of, low=float(interval.low), high=float(interval.high))
