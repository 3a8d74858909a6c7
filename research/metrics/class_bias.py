"""Bias of classes: whether a network gives a class more, or fewer, than there are.

IoU and accuracy say how good predictions are, not what is wrong with them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped


class Ratio(NamedTuple):
    """Predicted over true, and its standard error over images; NaN where there are too few."""

    value: float
    error: float


class Share(NamedTuple):
    """Shares of a class among predictions and among true classes, and the ratio of the two."""

    predicted: float
    true: float
    ratio: Ratio


def ratio_of_sums(part: Shaped[np.ndarray, " n"], whole: Shaped[np.ndarray, " n"]) -> Ratio:
    """Sum of `part` over sum of `whole`, each with a number for every image.

    With R the ratio, the standard error is √(m / (m - 1) Σ (partᵢ - R wholeᵢ)²) / Σ wholeᵢ
    (Cochran, "Sampling techniques", 1977, section 2.11), where m is the number of images in which
    either occurs: images of neither say nothing of how the ratio varies. It needs two images, and
    of few it is too low.
    """
    part, whole = (np.asarray(x, np.float64) for x in (part, whole))
    if not whole.any():
        return Ratio(math.nan, math.nan)
    ratio = part.sum() / whole.sum()
    images = np.count_nonzero(part + whole)
    if images < 2:
        return Ratio(float(ratio), math.nan)
    spread = ((part - ratio * whole) ** 2).sum() * images / (images - 1)
    return Ratio(float(ratio), float(math.sqrt(spread) / whole.sum()))


def area_ratios(
    areas: Int[np.ndarray, "n classes 3"], class_names: Sequence[str]
) -> Mapping[str, Ratio]:
    """Each class's predicted area over its true one, over all images of a split.

    Args:
      areas: of `research.metrics.segmentation.areas`: true, predicted, both.
    """
    return {
        name: ratio_of_sums(areas[:, k, 1], areas[:, k, 0]) for k, name in enumerate(class_names)
    }


def class_shares(
    labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], class_names: Sequence[str]
) -> Mapping[str, Share]:
    """Each class's share of the predictions beside its share of the true classes.

    Args:
      labels: true classes.
      predicted: the most probable ones.
    """
    shares = {}
    for k, name in enumerate(class_names):
        said, true = predicted == k, labels == k
        shares[name] = Share(float(said.mean()), float(true.mean()), ratio_of_sums(said, true))
    return shares
