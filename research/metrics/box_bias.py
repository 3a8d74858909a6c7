"""Bias of detections: whether their boxes are too large, too small or beside the objects.

Average precision says how good boxes are, not what is wrong with them. Arrays are those of
research/metrics/detection.py.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from research.metrics.detection import Arrays, numpy_iou


class Median(NamedTuple):
    """A median and its standard error; NaN where there are too few values."""

    value: float
    error: float


class BoxBias(NamedTuple):
    """Detected boxes against those of the objects they were matched with.

    Attributes:
      width, height: of the detection, over the object's.
      x, y: how far the detection's centre lies to the right of and below the object's, over the
        object's width and height.
      matches: pairs that this was computed of.
    """

    width: Median
    height: Median
    x: Median
    y: Median
    matches: int


def box_bias(detections: Arrays, targets: Arrays, threshold: float = 0.2) -> BoxBias:
    """Compares every object with the detection of it, whatever their classes.

    The surest detection of an image comes first; each takes the free object that it overlaps most,
    where their IoU is at least `threshold`. That is low, as pairs above 0.5 differ little whatever
    is wrong. Crowds and difficult objects are left out.
    """
    image, detection, target = matched(detections, targets, threshold)
    found = detections["boxes"][image, detection].astype(np.float64)
    true = targets["boxes"][image, target].astype(np.float64)
    sides = true[:, 2:] - true[:, :2]
    ratio = (found[:, 2:] - found[:, :2]) / sides
    offset = (found[:, :2] + found[:, 2:] - true[:, :2] - true[:, 2:]) / 2 / sides
    width, height, x, y = (median(values) for values in (*ratio.T, *offset.T))
    return BoxBias(width, height, x, y, len(image))


def median(values: Float[np.ndarray, " n"]) -> Median:
    """The median, and its standard error whatever the distribution.

    How many of n values lie below the true median is binomial, n / 2 with a deviation of √n / 2. So
    the values that many ranks from the middle lie a standard error from it (Conover, "Practical
    nonparametric statistics", section 3.2). The error needs two values.
    """
    n = len(values)
    if not n:
        return Median(math.nan, math.nan)
    middle = (n - 1) / 2
    ranks = np.array([middle - math.sqrt(n) / 2, middle, middle + math.sqrt(n) / 2])
    low, value, high = np.interp(ranks, np.arange(n), np.sort(values)).tolist()
    return Median(value, (high - low) / 2 if n > 1 else math.nan)


def matched(
    detections: Arrays, targets: Arrays, threshold: float
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Number of image, detection and object of each pair; see `box_bias`."""
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
