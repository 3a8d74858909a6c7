"""Bias of boxes: whether they are too large, too small or displaced.

Arrays are those of research/metrics/detection.py.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int

from research.metrics.bias import Bias, Ratio
from research.metrics.detection import Arrays, numpy_iou

FEW = 20  # with fewer pairs of a detection and an object, ratios are uncertain


def of_boxes(detections: Arrays, targets: Arrays, threshold: float = 0.2) -> Bias:
    """Compares every object's box with that of its detection, whatever their classes.

    The surest detection of an image comes first; each takes the free object that it overlaps most,
    where their IoU is at least `threshold`. That is low, as pairs above 0.5 differ little whatever
    is wrong. Crowds and difficult objects are left out.

    Returns:
      The median ratios of width and height; and how far the detections' centres lie to the right of
      and below the objects', the medians as shares of the objects' width and height.
    """
    image, detection, target = matched(detections, targets, threshold)
    found = detections["boxes"][image, detection].astype(np.float64)
    true = targets["boxes"][image, target].astype(np.float64)
    sides = true[:, 2:] - true[:, :2]
    width, height = ((found[:, 2:] - found[:, :2]) / sides).T
    x, y = ((found[:, :2] + found[:, 2:] - true[:, :2] - true[:, 2:]) / 2 / sides).T
    also = {
        "centre to the right": median(x).value,
        "centre below": median(y).value,
        "matches": float(len(image)),
    }
    warning = f"only {len(image)} objects were matched with a detection" if len(image) < FEW else ""
    ratios = {"width": median(width), "height": median(height)}
    return Bias("predicted / true sides of boxes", ratios, also, warning)


def median(values: Float[np.ndarray, " n"]) -> Ratio:
    """Returns the median, and its standard error for any distribution.

    The number of n values below the true median is binomial, n / 2 with a deviation of √n / 2. So
    the values that many ranks from the middle lie a standard error from it (Conover, "Practical
    nonparametric statistics", section 3.2). The error needs two values.
    """
    n = len(values)
    if not n:
        return Ratio(math.nan, math.nan)
    middle = (n - 1) / 2
    ranks = np.array([middle - math.sqrt(n) / 2, middle, middle + math.sqrt(n) / 2])
    low, value, high = np.interp(ranks, np.arange(n), np.sort(values)).tolist()
    return Ratio(value, (high - low) / 2 if n > 1 else math.nan)


def matched(
    detections: Arrays, targets: Arrays, threshold: float
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Returns the numbers of image, detection and object of each pair; see `of_boxes`."""
    n, most = detections["valid"].shape
    free: Bool[np.ndarray, "n object"] = targets["valid"] & ~targets["crowd"]
    # A box without width or height has no ratio.
    free = free & (targets["boxes"][..., 2:] > targets["boxes"][..., :2]).all(-1)
    if not free.shape[1]:
        most = 0
    order = np.argsort(np.where(detections["valid"], -detections["scores"], np.inf), kind="stable")
    nothing = np.zeros(0, int)
    rows, pairs = np.arange(n), [(nothing, nothing, nothing)]
    for rank in range(most):  # the next detection of every image at once
        this = order[:, rank]
        overlap = numpy_iou(detections["boxes"][rows, this][:, None], targets["boxes"])
        overlap = np.where(free, overlap, -1.0)
        best = overlap.argmax(1)
        taken = detections["valid"][rows, this] & (overlap[rows, best] >= threshold)
        free[rows[taken], best[taken]] = False
        pairs.append((rows[taken], this[taken], best[taken]))
    image, detection, target = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return image, detection, target
