"""Bias of classes: whether a network predicts a class too often or too rarely."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from research.metrics.bias import Bias, ratio_of_sums


def of_areas(areas: Int[np.ndarray, "n classes 3"], class_names: Sequence[str]) -> Bias:
    """Compares each class's predicted area with its true one, over all images of a split.

    Args:
      areas: of `research.metrics.segmentation.areas`: true, predicted, both.
    """
    ratios = {
        name: ratio_of_sums(areas[:, k, 1], areas[:, k, 0]) for k, name in enumerate(class_names)
    }
    return Bias("predicted / true area", ratios)


def of_shares(
    labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], class_names: Sequence[str]
) -> Bias:
    """Compares each class's share of the predictions with its share of the true classes.

    Args:
      labels: true classes.
      predicted: the most probable ones.
    """
    ratios = {
        name: ratio_of_sums(predicted == k, labels == k) for k, name in enumerate(class_names)
    }
    return Bias("predicted / true share", ratios)
