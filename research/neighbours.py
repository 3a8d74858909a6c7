"""Exact nearest neighbours on the device, in blocks: no matrix of all distances is ever made."""

import functools
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32, Num

from research.losses.pairwise import root, squared_distances

Metric: TypeAlias = Literal["euclidean", "cityblock"]
QUERY_BLOCK, GALLERY_BLOCK = 1024, 4096


def distances(
    a: Float[Array, "n d"], b: Float[Array, "m d"], metric: Metric = "euclidean"
) -> Float[Array, "n m"]:
    """Euclidean or city-block distances of all pairs."""
    if metric == "euclidean":
        return root(squared_distances(a, b))
    return jnp.abs(a[:, None] - b[None]).sum(-1)  # one fused loop: [n, m, d] is never stored


def nearest(
    queries: Float[np.ndarray, "query d"],
    gallery: Float[np.ndarray, "gallery d"],
    count: int = 1,
    metric: Metric = "euclidean",
    *,
    others: Int[np.ndarray, " query"] | None = None,
) -> tuple[Float32[np.ndarray, "query count"], Int32[np.ndarray, "query count"]]:
    """Distances and positions of the `count` gallery rows nearest to each query, nearest first.

    Args:
      count: at most the size of the gallery.
      others: a position in the gallery for each query that is no neighbour of it: itself.

    Of equally distant rows that of the lower position comes first.
    """
    count = min(count, len(gallery))
    if others is None:
        others = np.full(len(queries), -1)
    query_block = min(QUERY_BLOCK, len(queries))
    gallery_block = min(max(GALLERY_BLOCK, count), len(gallery))
    gallery_blocks = jnp.asarray(_blocks(gallery, gallery_block))  # copied to the device once
    found = [
        _nearest_block(q, o, gallery_blocks, len(gallery), count, metric)
        for q, o in zip(
            _blocks(queries, query_block),
            _blocks(others.astype(np.int32), query_block),
            strict=True,
        )
    ]
    parts = zip(*jax.device_get(found), strict=True)
    distance, position = (np.concatenate(part)[: len(queries)] for part in parts)
    return distance, position


def _blocks(x: Num[np.ndarray, "n *d"], size: int) -> Num[np.ndarray, "blocks {size} *d"]:
    """[n, ...] as [blocks, size, ...], the last one padded with zeros."""
    blocks = -(-len(x) // size)
    padded = np.zeros((blocks * size, *x.shape[1:]), x.dtype)
    padded[: len(x)] = x
    return padded.reshape(blocks, size, *x.shape[1:])


@functools.partial(jax.jit, static_argnames=("length", "count", "metric"))
def _nearest_block(
    queries: Array, others: Array, gallery: Array, length: int, count: int, metric: Metric
) -> tuple[Array, Array]:
    """The nearest of all gallery blocks to one block of queries."""
    size = gallery.shape[1]

    def merge(best: tuple[Array, Array], block: tuple[Array, Array]) -> tuple[Any, None]:
        rows, first = block
        position = first + jnp.arange(size)
        distance = distances(queries, rows, metric)
        excluded = (position >= length) | (position == others[:, None])
        new, place = jax.lax.top_k(jnp.where(excluded, -jnp.inf, -distance), min(count, size))
        both = jnp.concatenate([best[0], new], 1)
        positions = jnp.concatenate([best[1], position[place]], 1)
        kept, order = jax.lax.top_k(both, count)
        return (kept, jnp.take_along_axis(positions, order, axis=1)), None

    start = (
        jnp.full((len(queries), count), -jnp.inf, jnp.float32),
        jnp.full((len(queries), count), -1, jnp.int32),
    )
    firsts = size * jnp.arange(len(gallery), dtype=jnp.int32)
    (negative, position), _ = jax.lax.scan(merge, start, (gallery, firsts))
    return -negative, position
