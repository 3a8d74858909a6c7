"""Segmentation of an object without one label of pixels: saliency, then GrabCut.

Simonyan et al., "Deep inside convolutional networks", 2013, section 3.2: very salient pixels are
surely the object's, barely salient ones the background's, and colour decides on the rest.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from research.errors import UserError

FOREGROUND, BACKGROUND = 0.95, 0.30  # quantiles of saliency, as in the paper


def segment(
    image: UInt8[np.ndarray, "height width 3"],
    saliency: Float[np.ndarray, "height width"],
    rounds: int = 5,
) -> Bool[np.ndarray, "height width"]:
    """Finds the object's pixels: GrabCut (Rother et al. 2004) started from saliency.

    Pieces that are small beside the largest one are left out.

    Raises:
      UserError: where saliency tells no pixel from another.
    """
    smooth = cv2.GaussianBlur(np.asarray(saliency, np.float32), (0, 0), max(image.shape) / 100)
    high, low = np.quantile(smooth, FOREGROUND), np.quantile(smooth, BACKGROUND)
    if high <= low:
        raise UserError("the saliency is the same everywhere: there is nothing to segment.")
    mask = np.full(smooth.shape, cv2.GC_PR_BGD, np.uint8)
    mask[smooth > (high + low) / 2] = cv2.GC_PR_FGD
    mask[smooth >= high] = cv2.GC_FGD
    mask[smooth <= low] = cv2.GC_BGD
    cv2.setRNGSeed(0)  # GrabCut's clusters start at random
    models = np.zeros((1, 65)), np.zeros((1, 65))
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    cv2.grabCut(bgr, mask, (0, 0, 0, 0), *models, rounds, cv2.GC_INIT_WITH_MASK)
    return without_fragments((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD))


def without_fragments(
    mask: Bool[np.ndarray, "height width"], least: float = 0.2
) -> Bool[np.ndarray, "height width"]:
    """Keeps the largest connected piece, and others of at least a share of its area."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count == 1:
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = 1 + np.flatnonzero(areas >= least * areas.max())
    return np.isin(pieces, kept)
