"""Losses of pairs: contrastive ones, and the Siamese classifier of "same" and "different"."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.losses.pairwise import draw, pairs, root, squared_distances, total


def contrastive_loss(
    embeddings: Float[Array, "row d"],
    labels: Int[Array, " row"],
    mask: Bool[Array, " row"],
    *,
    margin: float = 1.0,
    axis: str | None = None,
) -> tuple[Float[Array, " row"], Float[Array, " row"]]:
    """Returns ½ d² of positive pairs, ½ max(0, margin - d)² of negative: Hadsell 2006, equation 4.

    The mean over positive pairs plus the mean over negative ones, both of the global batch, since
    there are many more of these.

    Returns:
      Each example's part, whose mean over the global batch is that sum; and the share of its
      negatives that are nearer than the margin.
    """
    found = pairs(embeddings, labels, mask, axis)
    squares = squared_distances(embeddings, found.others)
    hinge = jnp.maximum(margin - root(squares), 0.0)
    examples = total(mask.astype(jnp.float32), axis)

    def part(values: Array, which: Array) -> Array:
        count = jnp.maximum(total(which.astype(jnp.float32), axis), 1.0)
        return 0.5 * jnp.where(which, values, 0.0).sum(1) * examples / count

    loss = part(squares, found.positive) + part(hinge**2, found.negative)
    near = (found.negative & (hinge > 0)).sum(1)
    return loss, near / jnp.maximum(found.negative.sum(1), 1)


def supervised_contrastive_loss(
    embeddings: Float[Array, "row d"],
    labels: Int[Array, " row"],
    mask: Bool[Array, " row"],
    *,
    scale: float = 16.0,
    axis: str | None = None,
) -> tuple[Float[Array, " row"], Float[Array, " row"]]:
    """Returns -log softmax over all others, mean over positives: Khosla et al. 2020, equation 2.

    With two images a class, each example is a one-shot query among all classes of the batch. An
    example without a positive has loss 0.

    Args:
      embeddings: of length 1.
      scale: of cosines; 1 / temperature.

    Returns:
      The loss of each example, nats, and whether its nearest other is of its class.
    """
    found = pairs(embeddings, labels, mask, axis)
    logits = scale * jnp.matmul(embeddings, found.others.T, precision="highest")
    real = found.positive | found.negative
    # Rows without any other would be all -inf.
    logits = jnp.where(real | ~real.any(1, keepdims=True), logits, -jnp.inf)
    log_p = jnp.where(found.positive, jax.nn.log_softmax(logits), 0.0)
    count = found.positive.sum(1)
    nearest = jnp.take_along_axis(found.positive, logits.argmax(1)[:, None], axis=1)[:, 0]
    return -log_p.sum(1) / jnp.maximum(count, 1), nearest.astype(jnp.float32)


def likeness(
    a: Float[Array, "n d"], b: Float[Array, "n d"], weights: Float[Array, " d"], bias: Array
) -> Float[Array, " n"]:
    """Returns the logit of "the same": bias - Σⱼ wⱼ |aⱼ - bⱼ|; the order of a and b has no say."""
    return bias - jnp.abs(a - b) @ weights


def siamese_loss(
    embeddings: Float[Array, "row d"],
    labels: Int[Array, " row"],
    mask: Bool[Array, " row"],
    key: Array,
    weights: Float[Array, " d"],
    bias: Float[Array, ""],
    *,
    axis: str | None = None,
) -> tuple[Float[Array, " row"], Float[Array, " row"]]:
    """Returns the cross-entropy of P(same) = sigmoid(bias - Σⱼ wⱼ |aⱼ - bⱼ|): Koch et al. 2015, 3.

    Each example is paired with one of its class and one of another, drawn uniformly by `key` from
    the global batch, so half of the pairs are the same. An example without both has loss 0.

    Args:
      key: the same on all devices.
      weights: at least 0 here, so that the verdict is a distance: weighted city-block.

    Returns:
      The mean cross-entropy of each example's two pairs, nats, and the share of them predicted
      correctly.
    """
    found = pairs(embeddings, labels, mask, axis)
    valid = (found.positive.any(1) & found.negative.any(1)).astype(jnp.float32)
    losses, right = [], []
    for column, sign in zip(draw(key, found), (1.0, -1.0), strict=True):
        logits = sign * likeness(embeddings, found.others[column], weights, bias)  # of the truth
        losses.append(-jax.nn.log_sigmoid(logits))
        right.append((logits > 0).astype(jnp.float32))
    return valid * sum(losses) / 2, valid * sum(right) / 2
