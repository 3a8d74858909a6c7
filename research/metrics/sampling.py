"""Sampling for metrics of embeddings: frozen random numbers, and the examples of each class."""

import numpy as np
from jaxtyping import Bool, Float, Int

from research.vectors.neighbours import Metric

Embeddings = Float[np.ndarray, "n d"]
Labels = Int[np.ndarray, " n"]


def random(*numbers: int) -> np.random.RandomState:
    """Returns NumPy's frozen generator: the same pairs and episodes under every version."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(numbers)))


def class_members(
    labels: Labels, inside: Bool[np.ndarray, " n"] | None = None
) -> list[Int[np.ndarray, " _"]]:
    """Returns the positions of each class's examples; empty for a class with none `inside`."""
    classes = np.unique(labels)
    inside = np.ones(len(labels), bool) if inside is None else inside
    return [np.flatnonzero(inside & (labels == k)) for k in classes]


def between(
    a: Float[np.ndarray, "e n d"], b: Float[np.ndarray, "e m d"], metric: Metric
) -> Float[np.ndarray, "e n m"]:
    """Computes the distances of all rows of a to all of b, episode by episode."""
    if metric == "cityblock":
        return np.abs(a[:, :, None] - b[:, None]).sum(-1)
    centre = b.mean(1, keepdims=True)  # far from the origin the products lose their digits
    a, b = a - centre, b - centre
    squares = (a**2).sum(-1)[:, :, None] + (b**2).sum(-1)[:, None] - 2 * a @ b.swapaxes(1, 2)
    return np.sqrt(np.maximum(squares, 0.0))


def parts(n: int, size: int) -> list[slice]:
    """Returns slices of at most `size` that cover n rows."""
    return [slice(start, start + size) for start in range(0, n, size)]
