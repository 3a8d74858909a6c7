"""Evenly spaced samples: a part of a set is never just its beginning.

Sets are often ordered, by class or by who took the pictures; then their beginning is one of these.
"""

import numpy as np
from jaxtyping import Int, Num


def spaced(n: int, count: int) -> Int[np.ndarray, " chosen"]:
    """Returns positions of `count` of n things, or of all if they are no more, in rising order.

    The middles of as many equal parts: the k-th of m is number floor((2k + 1) n / 2m).
    """
    count = min(count, n)
    return (2 * np.arange(count) + 1) * n // (2 * max(count, 1))


def worst_first(faults: Num[np.ndarray, " n"], most: int) -> Int[np.ndarray, " chosen"]:
    """Returns at most `most` positions: those with most faults, then evenly spaced ones without."""
    worst = np.flatnonzero(faults)
    worst = worst[np.argsort(-faults[worst], kind="stable")][:most]
    faultless = np.flatnonzero(faults == 0)
    return np.concatenate([worst, faultless[spaced(len(faultless), most - len(worst))]])


def some_of(n: int, count: int) -> str:
    """Describes the sample of `spaced`: "200 of 1,000 images, evenly spaced" or "80 images"."""
    return f"{n:,} images" if n <= count else f"{count:,} of {n:,} images, evenly spaced"
