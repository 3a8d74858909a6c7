"""Triplet losses: pull an anchor nearer to its own class than to others, by a margin.

    max(0, d(anchor, positive) - d(anchor, negative) + margin)

Mining chooses the triplets. It has no gradient, and all kinds of it give counts: the number of
active triplets in which an anchor has another example as its positive, or as its negative. The loss
is linear in the distances with these counts as weights, so that no array of all triplets is ever
made: a batch of B takes B² numbers, and batch-all B² steps for each positive an anchor has.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.errors import choose
from research.losses.pairwise import BatchPairs, draw, pairs, root, squared_distances, total

Distances = Float[Array, "row all"]


class Mined(NamedTuple):
    """Active triplets (those of a loss above 0), as counts.

    Attributes:
      positives, negatives: triplets in which a row is the anchor and a column its positive, or
        its negative.
      valid: the number of mined triplets of each anchor, active or not.
      per_anchor: whether the loss is a mean over anchors, or else over active triplets.
    """

    positives: Float[Array, "row all"]
    negatives: Float[Array, "row all"]
    valid: Float[Array, " row"]
    per_anchor: bool


def batch_hard(key: Array, distance: Distances, found: BatchPairs, margin: float) -> Mined:
    """Mines each anchor's farthest positive and nearest negative: Hermans 2017, equation 5."""
    farthest = jnp.where(found.positive, distance, -jnp.inf).argmax(1)
    nearest = jnp.where(found.negative, distance, jnp.inf).argmin(1)
    return _one_each(farthest, nearest, distance, found, margin)


def random(key: Array, distance: Distances, found: BatchPairs, margin: float) -> Mined:
    """Mines a positive and a negative for each anchor, drawn uniformly by `key`."""
    return _one_each(*draw(key, found), distance, found, margin)


def batch_all(key: Array, distance: Distances, found: BatchPairs, margin: float) -> Mined:
    """Mines every triplet of the batch; the mean is over active ones: Hermans 2017, section 2."""

    def choose_negatives(positive: Array) -> Array:
        return found.negative & (distance < positive + margin)

    valid = found.positive.sum(1) * found.negative.sum(1)
    return _for_each_positive(choose_negatives, distance, found, valid)


def semi_hard(key: Array, distance: Distances, found: BatchPairs, margin: float) -> Mined:
    """Mines for each positive pair the nearest negative that is farther by less than the margin.

    Schroff et al., "FaceNet", 2015, section 3.2. A pair that has no such negative is left out.
    """
    columns = jnp.arange(distance.shape[1])

    def choose_negatives(positive: Array) -> Array:
        candidates = found.negative & (positive < distance) & (distance < positive + margin)
        nearest = jnp.where(candidates, distance, jnp.inf).argmin(1)
        return candidates & (columns == nearest[:, None])

    valid = jnp.where(found.negative.any(1), found.positive.sum(1), 0)
    return _for_each_positive(choose_negatives, distance, found, valid)


MINING: dict[str, Callable[[Array, Distances, BatchPairs, float], Mined]] = {
    "batch_hard": batch_hard,
    "batch_all": batch_all,
    "semi_hard": semi_hard,
    "random": random,
}


def triplet_loss(
    embeddings: Float[Array, "row d"],
    labels: Int[Array, " row"],
    mask: Bool[Array, " row"],
    key: Array,
    *,
    mining: str = "batch_hard",
    margin: float = 0.2,
    squared: bool = False,
    axis: str | None = None,
) -> tuple[Float[Array, " row"], Float[Array, " row"]]:
    """Computes the loss of each anchor, and the share of its triplets that are active.

    The mean of the losses over the real examples of the global batch is, for batch_hard and
    random, the mean over anchors; for batch_all and semi_hard, the mean over active triplets.
    Anchors without any triplet have loss 0 and gradient 0.

    Args:
      mask: False marks padding, which is neither anchor nor positive nor negative.
      key: for random mining; the same on all devices.
      mining: a key of MINING.
      squared: whether distances are squared Euclidean.
      axis: the pmap axis to mine across; None where the arrays are the global batch.
    """
    found = pairs(embeddings, labels, mask, axis)
    distance = squared_distances(embeddings, found.others)
    distance = distance if squared else root(distance)
    mine = choose(mining, MINING, "mining")
    mined = mine(key, jax.lax.stop_gradient(distance), found, margin)
    active = mined.positives.sum(1)
    loss = ((mined.positives - mined.negatives) * distance).sum(1) + margin * active
    if not mined.per_anchor:
        examples = total(mask.astype(jnp.float32), axis)
        loss = loss * examples / jnp.maximum(total(active, axis), 1.0)
    return loss, active / jnp.maximum(mined.valid, 1.0)


def _one_each(
    positive: Int[Array, " row"],
    negative: Int[Array, " row"],
    distance: Distances,
    found: BatchPairs,
    margin: float,
) -> Mined:
    """Counts the triplets of one positive and one negative for each anchor."""
    rows, columns = jnp.arange(len(distance)), jnp.arange(distance.shape[1])
    valid = found.positive.any(1) & found.negative.any(1)
    active = valid & (distance[rows, positive] - distance[rows, negative] + margin > 0)

    def counts(which: Array) -> Array:
        return (active[:, None] & (columns == which[:, None])).astype(jnp.float32)

    return Mined(counts(positive), counts(negative), valid.astype(jnp.float32), per_anchor=True)


def _for_each_positive(
    choose_negatives: Callable[[Array], Array],
    distance: Distances,
    found: BatchPairs,
    valid: Int[Array, " row"],
) -> Mined:
    """Counts the triplets that a rule makes of every anchor and positive.

    Args:
      choose_negatives: distance [row, 1] of a positive -> bool [row, all], the active negatives.
    """
    number = found.positive.sum(1)
    rank = jnp.cumsum(found.positive, axis=1)  # the i-th positive of each row has rank i

    def add(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, positives, negatives = carry
        this = found.positive & (rank == i)
        chosen = choose_negatives(jnp.where(this, distance, 0.0).sum(1)[:, None])
        chosen &= (i <= number)[:, None]
        return i + 1, positives + this * chosen.sum(1)[:, None], negatives + chosen

    zeros = jnp.zeros_like(distance)
    # As many rounds as the largest class has pairs; nothing flows back through them.
    _, positives, negatives = jax.lax.while_loop(
        lambda carry: carry[0] <= number.max(), add, (jnp.int32(1), zeros, zeros)
    )
    return Mined(positives, negatives, valid.astype(jnp.float32), per_anchor=False)
