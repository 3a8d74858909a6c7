"""Metrics of segmentation: counts of each example on the device, scores of a whole split from them.

Every number comes from one confusion matrix of the split, or from boundary pixels counted over it;
none is a mean of images' or batches' means, but the Rand score, which is defined for an image.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from jaxtyping import Array, Bool, Float, Int, Integer, UInt8

from research.data.masks import IGNORE

PROTOCOL = {
    "mIoU": "mean over classes of TP / (TP + FP + FN), from one confusion matrix of all pixels of "
    "the split; classes that neither truth nor prediction has are left out",
    "dice": "mean over the same classes of 2 TP / (2 TP + FP + FN), from the same matrix",
    "pixel_accuracy": "share of pixels whose most probable class is the true one",
    "pixel_error": "1 - pixel_accuracy",
    "boundary_f1": "mean over classes of the harmonic mean of precision and recall of boundary "
    "pixels, each matched within a tolerance of 0.75 % of the image's diagonal; counted over the "
    "whole split (Csurka et al. 2013 average over images)",
    "cross_entropy": "mean -log probability of the true class over pixels, nats",
    "rand_score": "1 - scikit-image's adapted Rand error of connected components of the predicted "
    "foreground, grown until they touch, against the true ones; true background left out; mean "
    "over images that have any",
}
TOLERANCE = 0.0075  # of the diagonal: Csurka et al. 2013, section 3.1


def confusion(
    labels: Integer[Array, "batch height width"],
    predicted: Integer[Array, "batch height width"],
    classes: int,
) -> Int[Array, "batch {classes} {classes}"]:
    """Pixels of each true class (row) that were taken for each class (column); ignored ones not."""

    def count(true: Array, guess: Array) -> Array:
        # Ignored pixels fall off the end, and out.
        cell = jnp.where(true == IGNORE, classes**2, true.astype(jnp.int32) * classes + guess)
        return jnp.bincount(cell.ravel(), length=classes**2 + 1)[:-1].reshape(classes, classes)

    return jax.vmap(count)(labels, predicted)


def cross_entropy(
    probabilities: Float[Array, "batch height width classes"],
    labels: Integer[Array, "batch height width"],
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """Each example's mean -log p over its pixels, and their number as its weight."""
    valid = labels != IGNORE
    true = (jax.nn.one_hot(labels, probabilities.shape[-1]) * probabilities).sum(-1)
    log_p = jnp.log(jnp.maximum(true, jnp.finfo(jnp.float32).tiny))
    count = valid.sum((1, 2)).astype(jnp.float32)
    return -jnp.where(valid, log_p, 0.0).sum((1, 2)) / jnp.maximum(count, 1.0), count


def tolerance(height: int, width: int) -> int:
    """Pixels by which a boundary may be off and still count as found."""
    return max(round(TOLERANCE * float(np.hypot(height, width))), 1)


def boundary_counts(
    labels: Integer[Array, "batch height width"],
    predicted: Integer[Array, "batch height width"],
    classes: int,
) -> Int[Array, "batch {classes} 4"]:
    """Of each class's boundary pixels: predicted near true ones, predicted, true near predicted,
    true.

    A boundary pixel has a neighbour (of four) of another class. Near is within `tolerance`, by
    Euclidean distance between pixels' centres. Ignored pixels are neither.
    """
    valid = labels != IGNORE
    radius = tolerance(labels.shape[1], labels.shape[2])
    side = np.arange(-radius, radius + 1)
    disk = (side[:, None] ** 2 + side[None] ** 2 <= radius**2).astype(np.float32)

    def boundary(inside: Bool[Array, "batch height width"]) -> Array:
        beyond = jnp.pad(valid & ~inside, ((0, 0), (1, 1), (1, 1)))
        beside = (
            beyond[:, 2:, 1:-1] | beyond[:, :-2, 1:-1] | beyond[:, 1:-1, 2:] | beyond[:, 1:-1, :-2]
        )
        return valid & inside & beside

    def near(pixels: Bool[Array, "batch height width"]) -> Array:
        stamped = jax.lax.conv_general_dilated(
            pixels[..., None].astype(jnp.float32),
            jnp.asarray(disk)[:, :, None, None],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return stamped[..., 0] > 0.5

    def count(number: Array) -> Array:
        true, guess = boundary(labels == number), boundary(predicted == number)
        found = [guess & near(true), guess, true & near(guess), true]
        return jnp.stack([x.sum((1, 2)) for x in found], axis=-1)  # [B, 4]

    return jax.lax.map(count, jnp.arange(classes)).swapaxes(0, 1)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where both are 0."""
    return part / np.maximum(whole, 1)


def score(
    matrix: Int[np.ndarray, "classes classes"],
    boundaries: Int[np.ndarray, "classes 4"],
    class_names: Sequence[str],
) -> dict[str, float]:
    """All but cross_entropy and rand_score, see PROTOCOL; and iou/<class>, dice/<class>."""
    matrix = matrix.astype(np.float64)
    right, true, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    occurs = np.flatnonzero(true + predicted)
    iou = ratio(right, true + predicted - right)
    dice = ratio(2 * right, true + predicted)
    accuracy = right.sum() / max(matrix.sum(), 1)
    near, guessed, found, there = boundaries.astype(np.float64).T
    precision, recall = ratio(near, guessed), ratio(found, there)
    bounded = np.flatnonzero(guessed + there)
    f1 = np.divide(
        2 * precision * recall,
        precision + recall,
        out=np.zeros_like(precision),
        where=precision + recall > 0,
    )
    values = {
        "mIoU": iou[occurs].mean() if len(occurs) else 0.0,
        "dice": dice[occurs].mean() if len(occurs) else 0.0,
        "pixel_accuracy": accuracy,
        "pixel_error": 1 - accuracy,
        "boundary_f1": f1[bounded].mean() if len(bounded) else 1.0,
    }
    for k in occurs.tolist():
        values[f"iou/{class_names[k]}"] = iou[k]
        values[f"dice/{class_names[k]}"] = dice[k]
    return {name: float(value) for name, value in values.items()}


def rand_score(
    labels: UInt8[np.ndarray, "n height width"], predicted: UInt8[np.ndarray, "n height width"]
) -> dict[str, float]:
    """{"rand_score": ...}; see PROTOCOL. The foreground is whatever is not class 0.

    Growing thins the predicted borders, as the ISBI 2012 challenge does (Arganda-Carreras et al.
    2015): how thick a membrane was drawn has no part in which cells are told apart. An image
    without foreground has no pairs of pixels to tell apart, and does not count; {} where all are
    such.
    """
    from skimage.metrics import adapted_rand_error
    from skimage.segmentation import expand_labels

    errors = []
    for true, guess in zip(labels, predicted, strict=True):
        known = true != IGNORE
        cells, found = (scipy.ndimage.label((x != 0) & known)[0] for x in (true, guess))
        if not cells.any():
            continue
        errors.append(adapted_rand_error(cells, expand_labels(found, float("inf")))[0])
    return {"rand_score": 1 - float(np.mean(errors))} if errors else {}


def totals(kept: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Confusion matrix and boundary counts of a split, from its examples'."""
    matrix, boundaries = (kept[name].sum(0, dtype=np.int64) for name in ("confusion", "boundary"))
    return matrix, boundaries
