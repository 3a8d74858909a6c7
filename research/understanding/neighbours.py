"""Which examples are alike: nearest neighbours in bounded memory, and maps of many examples."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Num


def in_blocks(
    rows: Num[np.ndarray, "n *shape"] | Callable[[int, int], np.ndarray], n: int, block: int
) -> Iterator[tuple[int, Float[np.ndarray, "b d"]]]:
    """(first row, rows as float32 vectors), a block at a time.

    Args:
      rows: an array, or a function (start, stop) -> its rows, where they do not fit in memory.
    """
    read = rows if callable(rows) else (lambda start, stop: rows[start:stop])
    for start in range(0, n, block):
        part = read(start, min(start + block, n))
        yield start, np.asarray(part, np.float32).reshape(len(part), -1)


def nearest(
    queries: Float[np.ndarray, "q d"],
    database: Iterable[tuple[int, Float[np.ndarray, "b d"]]],
    count: int,
) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
    """The nearest rows of a database by Euclidean distance, nearest first, and the distances.

    In memory are the queries, one block, and the best so far.

    Args:
      database: what `in_blocks` yields.
    """
    best = np.full((len(queries), 0), 0.0, np.float32)
    index = np.zeros((len(queries), 0), np.int64)
    squares = (queries**2).sum(1)[:, None]
    for start, block in database:
        distance = squares - 2 * queries @ block.T + (block**2).sum(1)[None]
        where = np.broadcast_to(start + np.arange(len(block)), distance.shape)
        best, index = np.concatenate([best, distance], 1), np.concatenate([index, where], 1)
        order = np.argsort(best, axis=1, kind="stable")[:, :count]
        best, index = np.take_along_axis(best, order, 1), np.take_along_axis(index, order, 1)
    return index, np.sqrt(np.maximum(best, 0)).astype(np.float32)


def two_coordinates(
    features: Float[np.ndarray, "n d"], kind: Literal["pca", "tsne"], seed: int = 0
) -> Float[np.ndarray, "n 2"]:
    """A place on a plane for each example.

    "pca" keeps the two directions of largest variance (Pearson 1901); "tsne" keeps neighbours
    together (van der Maaten and Hinton 2008), and distances between groups mean little.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    components = min(50, *features.shape) if kind == "tsne" else 2
    reduced = PCA(components, random_state=seed).fit_transform(features)
    if kind == "pca":
        return reduced.astype(np.float32)
    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
