"""Metrics of segmentation: counts of each image at its own size, scores of a whole split from them.

Every metric comes from pixels counted over the split; only the Rand score, which is defined for an
image, is a mean over images. Masks are compared on the host, one at a time, as
images differ in size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from jaxtyping import Array, Bool, Float, Int, Integer, UInt8
from scipy.spatial import KDTree

from research.data.images.masks import IGNORE

_SIZE = "at the images' own size"
PROTOCOL = {
    "mIoU": "mean over classes of TP / (TP + FP + FN), counted over all pixels of the split "
    f"{_SIZE}; what a crop cut off is missed; classes that neither truth nor prediction has are "
    "left out",
    "dice": "mean over the same classes of 2 TP / (2 TP + FP + FN), from the same counts",
    "pixel_accuracy": f"share of pixels {_SIZE} whose most probable class is the true one",
    "pixel_error": "1 - pixel_accuracy",
    "boundary_f1": "mean over classes of the harmonic mean of precision and recall of boundary "
    f"pixels {_SIZE}, each matched within a tolerance of 0.75 % of the diagonal; counted over the "
    "whole split (Csurka et al. 2013 average over images)",
    "cross_entropy": "mean -log probability of the true class over the pixels that the model "
    "gets, nats",
    "rand_score": "1 - scikit-image's adapted Rand error of connected components of the predicted "
    f"foreground {_SIZE}, grown until they touch, against the true ones; true background left out; "
    "mean over images that have any",
}
TOLERANCE = 0.0075  # of the diagonal: Csurka et al. 2013, section 3.1

Mask = UInt8[np.ndarray, "height width"]


def decide(scores: Any) -> Any:
    """Returns the class of each pixel's highest score, uint8; IGNORE where scores are NaN.

    Args:
      scores: [..., classes], NumPy or JAX.
    """
    library = scores.__array_namespace__()
    known = library.isfinite(scores.max(-1))
    return library.where(known, scores.argmax(-1), IGNORE).astype("uint8")


def cross_entropy(
    log_probabilities: Float[Array, "batch height width classes"],
    labels: Integer[Array, "batch height width"],
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """Returns each example's mean -log p over its pixels, and their number as its weight."""
    true = labels[..., None] == jnp.arange(log_probabilities.shape[-1])  # nowhere where ignored
    count = true.sum((1, 2, 3)).astype(jnp.float32)
    # Sums in two steps: of a million pixels at once, float32 would lose digits.
    log_p = jnp.where(true, log_probabilities, 0.0).sum((2, 3)).sum(1)
    return -log_p / jnp.maximum(count, 1.0), count


def areas(labels: Mask, predicted: Mask, classes: int) -> Int[np.ndarray, "{classes} 3"]:
    """Counts the pixels of each class in the truth, in the prediction, and in both.

    Pixels that are IGNORE in the truth do not count; those that are IGNORE in the prediction alone
    have no predicted class.
    """
    known = labels != IGNORE
    true, guess = labels[known], predicted[known]
    return np.stack(
        [np.bincount(x, minlength=256)[:classes] for x in (true, guess, true[true == guess])], -1
    )


def tolerance(height: int, width: int) -> int:
    """Returns the distance in pixels within which a boundary counts as found."""
    return max(round(TOLERANCE * float(np.hypot(height, width))), 1)


def boundary(
    mask: Mask, known: Bool[np.ndarray, "height width"]
) -> Bool[np.ndarray, "height width"]:
    """Returns the known pixels with a known neighbour (of four) of another class."""
    found = np.zeros(mask.shape, bool)
    for axis in (0, 1):
        a, b = ((slice(None),) * axis + (part,) for part in (slice(1, None), slice(-1)))
        differ = (mask[a] != mask[b]) & known[a] & known[b]
        found[a] |= differ
        found[b] |= differ
    return found


def boundary_counts(labels: Mask, predicted: Mask, classes: int) -> Int[np.ndarray, "{classes} 4"]:
    """Counts a class's boundary pixels: predicted near true, predicted, true near predicted, true.

    Near is within `tolerance`, by Euclidean distance between pixels' centres, and of the same
    class. Ignored pixels are neither.
    """
    radius = tolerance(*labels.shape)
    known = labels != IGNORE
    places, numbers = [], []
    for mask, inside in ((predicted, known & (predicted != IGNORE)), (labels, known)):
        place = np.nonzero(boundary(mask, inside))
        number = mask[place].astype(np.int64)
        # Classes lie in planes of their own, too far apart to be near each other.
        places.append(np.stack([*place, number * (2 * radius + 2)], -1))
        numbers.append(number)
    counts = []
    for one, other, number in ((0, 1, numbers[0]), (1, 0, numbers[1])):
        near = _near(places[one], places[other], radius)
        counts += [np.bincount(x, minlength=256)[:classes] for x in (number[near], number)]
    return np.stack(counts, -1)


def _near(
    points: Int[np.ndarray, "n 3"], others: Int[np.ndarray, "m 3"], radius: int
) -> Bool[np.ndarray, " n"]:
    """Returns which points have another within the radius; distances are roots of integers."""
    if not len(points) or not len(others):
        return np.zeros(len(points), bool)
    tree = KDTree(others, compact_nodes=False, balanced_tree=False)
    return np.isfinite(tree.query(points, distance_upper_bound=(radius**2 + 0.5) ** 0.5)[0])


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns part / whole, 0 where both are 0."""
    return part / np.maximum(whole, 1)


def compare(
    labels: Mask, predicted: Mask, classes: int, rand: bool = False
) -> dict[str, np.ndarray]:
    """Returns an image's counts for `score`: "areas" and "boundary"; and its "rand" score."""
    counts: dict[str, Any] = {
        "areas": areas(labels, predicted, classes),
        "boundary": boundary_counts(labels, predicted, classes),
    }
    if rand:
        counts["rand"] = rand_score(labels, predicted)
    return {name: np.asarray(value) for name, value in counts.items()}


def score(counts: Mapping[str, np.ndarray], class_names: Sequence[str]) -> dict[str, float]:
    """Computes PROTOCOL's metrics but cross_entropy; and iou/<class>, dice/<class>.

    Metrics without pixels are left out: all if every pixel is ignored, boundary_f1 if neither
    truth nor prediction has a boundary.

    Args:
      counts: of `compare`, for each image of the split.
    """
    true, predicted, right = counts["areas"].sum(0).astype(np.float64).T
    occurs = np.flatnonzero(true + predicted)
    if not true.any():
        return {}
    iou = ratio(right, true + predicted - right)
    dice = ratio(2 * right, true + predicted)
    accuracy = right.sum() / true.sum()
    values = {
        "mIoU": iou[occurs].mean(),
        "dice": dice[occurs].mean(),
        "pixel_accuracy": accuracy,
        "pixel_error": 1 - accuracy,
    }
    near, guessed, found, there = counts["boundary"].sum(0).astype(np.float64).T
    bounded = np.flatnonzero(guessed + there)
    if len(bounded):
        precision, recall = ratio(near, guessed), ratio(found, there)
        both = precision + recall
        f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
        values["boundary_f1"] = f1[bounded].mean()
    rand = counts.get("rand", np.empty(0))
    if np.isfinite(rand).any():
        values["rand_score"] = np.nanmean(rand)
    for k in occurs.tolist():
        values[f"iou/{class_names[k]}"] = iou[k]
        values[f"dice/{class_names[k]}"] = dice[k]
    return {name: float(value) for name, value in values.items()}


def rand_score(labels: Mask, predicted: Mask) -> float:
    """Computes an image's Rand score, see PROTOCOL; NaN if it has no foreground.

    The foreground is all but class 0. Growing thins the predicted borders, as the ISBI 2012
    challenge does (Arganda-Carreras et al. 2015), so that the drawn thickness of a membrane does
    not change the score. An image without foreground has no pairs of pixels to separate.
    """
    from skimage.metrics import adapted_rand_error
    from skimage.segmentation import expand_labels

    known = labels != IGNORE
    cells, found = (
        scipy.ndimage.label((x != 0) & (x != IGNORE) & known)[0] for x in (labels, predicted)
    )
    if not cells.any():
        return float("nan")
    return float(1 - adapted_rand_error(cells, expand_labels(found, float("inf")))[0])
