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
QUERY_BLOCK, GALLERY_BLOCK = 1024, 4096
SPARE = 6  # candidates of a block that are compared exactly, beside twice as many as are asked for
BATCH = 16  # queries whose candidates are compared at once
BLOCK_NUMBERS = 2**25  # of a block of the gallery, at most: 128 MiB, where rows are whole images


def distances(
    a: Float[Array, "n d"], b: Float[Array, "m d"], metric: Metric = "euclidean"
) -> Float[Array, "n m"]:
    """Euclidean or city-block distances of all pairs."""
    if metric == "euclidean":
        return root(squared_distances(a, b))
    return jnp.abs(a[:, None] - b[None]).sum(-1)  # one fused loop: [n, m, d] is never stored


class Stored(NamedTuple):
    """Rows that need not fit in memory: read(start, stop) gives some of them, of any shape."""

    read: Callable[[int, int], np.ndarray]
    length: int


def nearest(
    queries: Float[np.ndarray, "query d"],
    gallery: Float[np.ndarray, "gallery d"] | Stored,
    count: int = 1,
    metric: Metric = "euclidean",
    *,
    others: Int[np.ndarray, " query"] | None = None,
) -> tuple[Float32[np.ndarray, "query count"], Int32[np.ndarray, "query count"]]:
    """Distances and positions of the `count` gallery rows nearest to each query, nearest first.

    Args:
      gallery: each row is read once.
      count: at most the size of the gallery.
      others: a position in the gallery for each query that is no neighbour of it: itself.

    Of equally distant rows that of the lower position comes first.
    """
    if isinstance(gallery, np.ndarray):
        rows = gallery
        gallery = Stored(lambda start, stop: rows[start:stop], len(rows))
    count = min(count, gallery.length)
    if others is None:
        others = np.full(len(queries), -1)
    width = queries.shape[1]
    size = min(max(min(GALLERY_BLOCK, BLOCK_NUMBERS // width), count), gallery.length)
    length = min(QUERY_BLOCK, len(queries))
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
    for first in range(0, gallery.length, size):
        part = gallery.read(first, min(first + size, gallery.length))
        part = np.asarray(part, np.float32).reshape(len(part), -1)
        there = len(part)
        rows_on_device = jnp.asarray(_padded(part, size))  # copied once for all queries
        jax.block_until_ready(best)  # the next block is read meanwhile, but no more than that
        best = [
            _merge(so_far, *block, rows_on_device, np.int32(first), np.int32(there), metric)
            for so_far, block in zip(best, blocks, strict=True)
        ]
    found = zip(*jax.device_get(best), strict=True)
    closeness, position = (np.concatenate(parts)[: len(queries)] for parts in found)
    return -closeness, position


def _padded(x: Num[np.ndarray, "n *d"], size: int) -> Num[np.ndarray, "{size} *d"]:
    """Rows of zeros after the last, so that every block has one shape."""
    return x if len(x) == size else np.pad(x, [(0, size - len(x)), *[(0, 0)] * (x.ndim - 1)])


@functools.partial(jax.jit, static_argnames="metric")
def _merge(
    best: tuple[Array, Array],
    queries: Float[Array, "query d"],
    others: Int[Array, " query"],
    rows: Float[Array, "row d"],
    first: Int[Array, ""],
    there: Int[Array, ""],
    metric: Metric,
) -> tuple[Array, Array]:
    """The nearest so far, and those of one more block of the gallery.

    Args:
      best: negative distances and positions [query, count].
      first: position of the block's first row in the gallery.
      there: rows of the block that are no padding.
    """
    count, size = best[0].shape[1], len(rows)
    place = jnp.arange(size)
    excluded = (place >= there) | (first + place == others[:, None])
    # About the queries' mean, |a|^2 - 2ab + |b|^2 loses fewer digits. It still cannot tell rows
    # apart that are much nearer to the query than to the mean, so it only chooses candidates.
    middle = queries.mean(0)
    rough = distances(queries - middle, rows - middle, metric)
    rough = jnp.where(excluded, jnp.inf, rough)
    _, found = jax.lax.top_k(-rough, min(2 * count + SPARE, size))
    found = jnp.sort(found, axis=1)  # of equally distant rows the first comes first

    def exact(query: Array, found: Array) -> Array:
        change = rows[found] - query
        if metric == "cityblock":
            return jnp.abs(change).sum(-1)
        return jnp.sqrt((change**2).sum(-1))

    near = jax.lax.map(lambda pair: exact(*pair), (queries, found), batch_size=BATCH)
    near = jnp.where(jnp.take_along_axis(excluded, found, 1), jnp.inf, near)
    both = jnp.concatenate([best[0], -near], 1)
    positions = jnp.concatenate([best[1], first + found], 1)
    kept, order = jax.lax.top_k(both, count)
    return kept, jnp.take_along_axis(positions, order, axis=1)
