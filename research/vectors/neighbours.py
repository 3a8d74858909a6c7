"""Exact nearest neighbours on the device, in blocks: no matrix of all distances is ever made."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32, Num

from research.losses.pairwise import root, squared_distances

Metric: TypeAlias = Literal["euclidean", "cityblock"]
QUERY_BLOCK, VECTOR_BLOCK = 1024, 4096
SPARE = 6  # rows of a block that are compared exactly, in addition to twice the number asked for
VERY_NEAR = 1e-3  # squared distance over squared length: of less, float32 keeps too few digits
BLOCK_NUMBERS = 2**25  # of a block of vectors, at most: 128 MiB, where rows are whole images


def distances(
    a: Float[Array, "n d"], b: Float[Array, "m d"], metric: Metric = "euclidean"
) -> Float[Array, "n m"]:
    """Computes Euclidean or city-block distances of all pairs."""
    if metric == "euclidean":
        return root(squared_distances(a, b))
    return jnp.abs(a[:, None] - b[None]).sum(-1)  # one fused loop: [n, m, d] is never stored


class StoredVectors(NamedTuple):
    """Rows that need not fit in memory: read(start, stop) returns some of them, of any shape."""

    read: Callable[[int, int], np.ndarray]
    length: int


def nearest(
    queries: Float[np.ndarray, "query d"],
    vectors: Float[np.ndarray, "vector d"] | StoredVectors,
    count: int = 1,
    metric: Metric = "euclidean",
    *,
    others: Int[np.ndarray, " query"] | None = None,
) -> tuple[Float32[np.ndarray, "query count"], Int32[np.ndarray, "query count"]]:
    """Returns distances and positions of the `count` vectors nearest to each query, in order.

    Args:
      vectors: each is read once, and once more if a query has very near ones.
      count: at most the number of vectors.
      others: for each query the position of a vector to leave out, such as the query itself.

    Of equally distant vectors the one of the lower position comes first.
    """
    if isinstance(vectors, np.ndarray):
        rows = vectors
        vectors = StoredVectors(lambda start, stop: rows[start:stop], len(rows))
    if others is None:
        others = np.full(len(queries), -1)
    count = min(count, vectors.length)
    distance, position = _search(queries, vectors, count, metric, others)
    if metric == "euclidean":
        lengths = ((queries - queries.mean(0)) ** 2).sum(1, keepdims=True)
        doubtful = (distance**2 < VERY_NEAR * lengths).any(1)
        if doubtful.any():
            again = _search(
                queries[doubtful], vectors, count, metric, others[doubtful], careful=True
            )
            distance, position = distance.copy(), position.copy()
            distance[doubtful], position[doubtful] = again
    return distance, position


def _search(
    queries: Float[np.ndarray, "query d"],
    vectors: StoredVectors,
    count: int,
    metric: Metric,
    others: Int[np.ndarray, " query"],
    careful: bool = False,
) -> tuple[Float32[np.ndarray, "query count"], Int32[np.ndarray, "query count"]]:
    """Computes `nearest` in one pass over the vectors."""
    width = queries.shape[1]
    size = min(max(min(VECTOR_BLOCK, BLOCK_NUMBERS // width), count), vectors.length)
    length = min(QUERY_BLOCK, len(queries))
    middle = queries.mean(0)  # lengths are small around it, and fewer digits are lost
    queries = queries - middle
    blocks = [
        (
            jnp.asarray(_padded(queries[i : i + length], length)),
            _padded(others[i : i + length], length),
        )
        for i in range(0, len(queries), length)
    ]
    start = (
        jnp.full((length, count), -jnp.inf, jnp.float32),
        jnp.full((length, count), -1, jnp.int32),
    )
    best = [start] * len(blocks)
    for first in range(0, vectors.length, size):
        part = vectors.read(first, min(first + size, vectors.length))
        part = part.reshape(len(part), -1) - middle
        there = len(part)
        rows = jnp.asarray(_padded(part, size))  # copied once for all queries
        jax.block_until_ready(best)  # the next block is read meanwhile, but no more than that
        best = [
            _merge(so_far, *block, rows, np.int32(first), np.int32(there), metric, careful)
            for so_far, block in zip(best, blocks, strict=True)
        ]
    found = zip(*jax.device_get(best), strict=True)
    closeness, position = (np.concatenate(parts)[: len(queries)] for parts in found)
    return -closeness, position


def _padded(x: Num[np.ndarray, "n *d"], size: int) -> Num[np.ndarray, "{size} *d"]:
    """Adds rows of zeros after the last, so that every block has one shape."""
    return x if len(x) == size else np.pad(x, [(0, size - len(x)), *[(0, 0)] * (x.ndim - 1)])


@functools.partial(jax.jit, static_argnames=("metric", "careful"))
def _merge(
    best: tuple[Array, Array],
    queries: Float[Array, "query d"],
    others: Int[Array, " query"],
    rows: Float[Array, "row d"],
    first: Int[Array, ""],
    there: Int[Array, ""],
    metric: Metric,
    careful: bool,
) -> tuple[Array, Array]:
    """Merges the nearest so far with those of one more block of the vectors.

    Args:
      best: negative distances and positions [query, count].
      first: position of the block's first row among the vectors.
      there: number of the block's rows that are no padding.
      careful: distances are of differences; |a|^2 - 2ab + |b|^2 only chooses the rows for it.
    """
    count, size = best[0].shape[1], len(rows)
    place = jnp.arange(size)
    excluded = (place >= there) | (first + place == others[:, None])
    wanted = min(2 * count + SPARE if careful else count, size)
    distance = distances(queries, rows, metric)
    new, found = jax.lax.top_k(jnp.where(excluded, -jnp.inf, -distance), wanted)
    if careful:
        found = jnp.sort(found, axis=1)  # of equally distant rows the first comes first
        exact = lambda pair: root(((rows[pair[1]] - pair[0]) ** 2).sum(-1))
        new = -jax.lax.map(exact, (queries, found))
        new = jnp.where(jnp.take_along_axis(excluded, found, axis=1), -jnp.inf, new)
    both = jnp.concatenate([best[0], new], 1)
    positions = jnp.concatenate([best[1], first + found], 1)
    kept, order = jax.lax.top_k(both, count)
    return kept, jnp.take_along_axis(positions, order, axis=1)
