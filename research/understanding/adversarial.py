"""Small changes that change the answer; norms are in pixel units (0..255).

Goodfellow et al., "Explaining and harnessing adversarial examples", 2014 (FGSM: one step along the
gradient's sign); Madry et al., "Towards deep learning models resistant to adversarial attacks",
2017 (PGD: many steps, each back onto the ball of allowed changes).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from research.understanding.regularisers import by_norm, nearest_within

Images = Float[Array, "batch height width channel"]
Loss = Callable[[Images], Float[Array, " batch"]]


def margin(
    scores: Float[Array, "batch classes"], unit: int | Array, toward: bool
) -> Float[Array, " batch"]:
    """Computes what an attack lowers: below 0 the answer is the one sought.

    Args:
      unit: the class to leave, or with `toward` to reach.
    """
    is_unit = jnp.arange(scores.shape[-1]) == jnp.asarray(unit)[..., None]
    own = jnp.where(is_unit, scores, 0.0).sum(-1)
    best_other = jnp.where(is_unit, -jnp.inf, scores).max(-1)
    return best_other - own if toward else own - best_other


def pgd(
    loss: Loss, original: Images, epsilon: float | Array, order: str, steps: int, size: float
) -> Images:
    """Finds images of lower loss no farther than epsilon from the original, of values 0..255.

    Args:
      order: "linf" (largest change of a value) or "l2" (Euclidean).
      steps: 1 is FGSM with size 1.
      size: of a step, as a share of epsilon.
    """
    direction = by_norm(order)

    def step(images: Images, _: None) -> tuple[Images, None]:
        gradient = jax.grad(lambda x: loss(x).sum())(images)
        along, _ = direction.update(gradient, direction.init(images))
        moved = nearest_within(images - size * epsilon * along, original, epsilon, order)
        return jnp.clip(moved, 0.0, 255.0), None

    return jax.lax.scan(step, original, None, steps)[0]


class Smallest(NamedTuple):
    """The nearest images found that succeed, one for each original.

    Attributes:
      images: the original where none was found.
      epsilon: radius at which each was found; infinite where none was.
    """

    images: Images
    epsilon: Float[Array, " batch"]


def smallest_perturbation(
    loss: Loss,
    original: Images,
    order: str,
    highest: float,
    rounds: int = 10,
    steps: int = 20,
    size: float = 0.1,
) -> Smallest:
    """Finds the smallest change that makes the loss negative, by PGD and bisection over its radius.

    The radius is an upper bound: another attack may find a smaller one.

    Args:
      highest: the largest radius tried, pixel units.
    """

    def one(image: Float[Array, "height width channel"]) -> tuple[Array, Array]:
        def attempt(state: Any, _: None) -> tuple[Any, None]:
            low, high, best, found = state
            epsilon = jnp.where(jnp.isinf(found), high, (low + high) / 2)
            (changed,) = pgd(loss, image[None], epsilon, order, steps, size)
            success: Bool[Array, ""] = loss(changed[None])[0] < 0
            better = success & (epsilon < found)
            return (
                jnp.where(success, low, epsilon),
                jnp.where(success, epsilon, high),
                jnp.where(better, changed, best),
                jnp.where(better, epsilon, found),
            ), None

        start = (jnp.float32(0.0), jnp.float32(highest), image, jnp.float32(jnp.inf))
        (_, _, best, found), _ = jax.lax.scan(attempt, start, None, rounds)
        return best, found

    return Smallest(*jax.lax.map(one, original))


def norms(change: Images) -> dict[str, Float[Array, " batch"]]:
    """Measures how far images moved: largest value, Euclidean length, and share of pixels."""
    axes = (1, 2, 3)
    return {
        "linf": jnp.abs(change).max(axes),
        "l2": jnp.sqrt((change**2).sum(axes)),
        "changed_pixels": (jnp.abs(change).max(-1) > 0).mean((1, 2)),
    }
