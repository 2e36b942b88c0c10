"""How sure a rate is, given that copies of one part say the same thing again."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from castnet.data.split import Indices

CONFIDENCE = 0.95


def rate_interval(wrong: NDArray[np.bool_], parts: Indices | None) -> tuple[float, float]:
    """The interval of the share of wrong images at 95 % confidence: 0 of 453 is not zero.

    Clopper & Pearson's exact interval (Biometrika 26, 1934) for an effective sample size, p (1 − p) / v, where v is the
    share's variance by parts, linearised (Korn & Graubard, Survey Methodology 24, 1998, p. 193). Few parts estimate v
    badly, and parts whose copies are wrong one by one would count as more parts than there are; so the size is at most
    the number of parts. That keeps 95 % where the effective size by itself would cover as little as 70 %. Without an
    error, and where every part has one image, the interval is exact in the number of parts.

    Args:
        wrong: whether each image is judged wrongly, (n,), at least one.
        parts: which part each image shows, int64 (n,); None counts every image as a part of its own.

    Returns:
        Lower and upper end, between 0 and 1.
    """
    part = np.arange(len(wrong)) if parts is None else np.unique(parts, return_inverse=True)[1]
    images, errors = np.bincount(part), np.bincount(part, weights=wrong)
    rate, size = errors.sum() / images.sum(), float(len(images))
    if variance := ((errors - rate * images) ** 2).sum() / images.sum() ** 2:
        size = min(size, rate * (1 - rate) / variance)
    tail = (1 - CONFIDENCE) / 2
    hits, misses = size * rate, size * (1 - rate)
    low = 0.0 if rate == 0 else float(beta.ppf(tail, hits, misses + 1))
    high = 1.0 if rate == 1 else float(beta.ppf(1 - tail, hits + 1, misses))
    return low, high


def interval_note(parts_known: bool) -> str:
    """One sentence on what the intervals of a report count."""
    if parts_known:
        return "95 % intervals count parts: copies of one part are one observation."
    return (
        "95 % intervals count every image as a part of its own; copies of one part, if there are any, make them too "
        "narrow (data.groups names parts)."
    )
