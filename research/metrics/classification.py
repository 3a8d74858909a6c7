"""Metrics of classification: per-example measures on the device, whole-split scores on the host."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

CALIBRATION_BINS = 15

PROTOCOL = {
    "accuracy": "share of examples whose most probable class is the true one",
    "top5_accuracy": "share of examples whose true class is among the five most probable",
    "cross_entropy": "mean -log probability of the true class, nats, without label smoothing",
    "macro_accuracy": "mean over classes of each class's accuracy; absent classes left out",
    "calibration_error": f"expected calibration error, {CALIBRATION_BINS} equal-width bins of the "
    "highest probability (Guo et al. 2017)",
}


def measure(
    log_probabilities: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> dict[str, tuple[Float[Array, " batch"], Float[Array, " batch"]]]:
    """Returns {name: (value, weight of 1)} an example: accuracy, cross_entropy, top5_accuracy.

    Top-5 is left out for five classes or fewer, as it would always be 1. The true
    class's rank counts the classes that are strictly more probable, and of equally probable ones
    those of a lower number, as argmax does; and all others where a probability is no number.
    """
    true = jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)
    number = jnp.arange(log_probabilities.shape[1])[None]
    other, later = number != labels[:, None], number > labels[:, None]
    after = (log_probabilities < true) | ((log_probabilities == true) & later)
    rank = (other & ~after).sum(1)
    values = {"accuracy": rank < 1, "cross_entropy": -true[:, 0]}
    if log_probabilities.shape[1] > 5:
        values["top5_accuracy"] = rank < 5
    ones = jnp.ones(len(labels), jnp.float32)
    return {name: (value.astype(jnp.float32), ones) for name, value in values.items()}


def score(
    log_probabilities: Float[np.ndarray, "n classes"],
    labels: Int[np.ndarray, " n"],
    class_names: tuple[str, ...],
) -> dict[str, float]:
    """Computes accuracy/<class>, macro_accuracy and calibration_error of a split; see PROTOCOL.

    An example whose probabilities are NaN is wrong, and calibration_error is then left out.
    """
    known = np.isfinite(log_probabilities.max(1))
    right = known & (log_probabilities.argmax(1) == labels)
    counts = np.bincount(labels, minlength=len(class_names))
    hits = np.bincount(labels, weights=right, minlength=len(class_names))
    present = np.flatnonzero(counts)
    by_class = {f"accuracy/{class_names[k]}": float(hits[k] / counts[k]) for k in present}
    values = {"macro_accuracy": float(np.mean(list(by_class.values())))}
    if known.all():
        values["calibration_error"] = calibration_error(np.exp(log_probabilities), labels)
    return values | by_class


def confusion_matrix(
    labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], classes: int
) -> Int[np.ndarray, "{classes} {classes}"]:
    """Counts the examples of each true class (row) by predicted class (column)."""
    pairs = np.asarray(labels, np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def calibration_bins(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns count, mean confidence and accuracy of each bin ((b - 1) / B, b / B]."""
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == labels
    numbers = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, None)
    numbers = np.minimum(numbers, CALIBRATION_BINS - 1)  # a probability may round to above 1
    count = np.bincount(numbers, minlength=CALIBRATION_BINS)
    most = np.maximum(count, 1)
    mean = np.bincount(numbers, weights=confidence, minlength=CALIBRATION_BINS) / most
    accuracy = np.bincount(numbers, weights=right, minlength=CALIBRATION_BINS) / most
    return count, mean, accuracy


def calibration_error(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"]
) -> float:
    """Returns Σ_b n_b / n |accuracy_b - confidence_b|: Guo et al. 2017, equation 3."""
    count, confidence, accuracy = calibration_bins(probabilities, labels)
    return float((count * np.abs(accuracy - confidence)).sum() / len(labels))


def top_classes(
    probabilities: Float[np.ndarray, " classes"], names: Sequence[str], count: int = 5
) -> dict[str, Any]:
    """Returns one object for predictions.jsonl: the most probable class, and the first few."""
    order = np.argsort(-probabilities)[:count]
    top = {names[i]: float(probabilities[i]) for i in order}
    summary = ", ".join(f"{name} {value:.2f}" for name, value in list(top.items())[:3])
    return {"summary": summary, "class": names[order[0]], "probabilities": top}
