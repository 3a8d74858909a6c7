"""Regularisers of an image that is optimised, as optax transformations.

Yosinski et al., "Understanding neural networks through deep visualization", 2015, section 3, has L2
decay, blur, and the clipping of pixels whose norm or whose contribution is small. What acts on the
image itself, after a step, is a `Projection`; `projected` makes a transformation of it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

Images = Float[Array, "batch height width channel"]
# (image after the step, gradient of the loss before it, steps done before it) -> image
Projection = Callable[[Images, Images, Array], Images]


class _Projected(NamedTuple):
    step: Array
    inner: optax.OptState


def projected(
    optimizer: optax.GradientTransformation, projections: Sequence[Projection]
) -> optax.GradientTransformation:
    """Makes an optimizer whose every step is followed by the projections, in their order."""

    def init(params: optax.Params) -> _Projected:
        return _Projected(jnp.int32(0), optimizer.init(params))

    def update(
        gradients: optax.Updates, state: _Projected, params: optax.Params | None = None
    ) -> tuple[optax.Updates, _Projected]:
        updates, inner = optimizer.update(gradients, state.inner, params)

        def one(image: Array, change: Array, gradient: Array) -> Array:
            moved = image + change
            for projection in projections:
                moved = projection(moved, gradient, state.step)
            return moved - image

        return jax.tree.map(one, params, updates, gradients), _Projected(state.step + 1, inner)

    return optax.GradientTransformation(init, update)


def l2_penalty(strength: float) -> optax.GradientTransformation:
    """Adds the gradient of strength |I|^2: Simonyan et al. 2013, equation 1."""
    return optax.add_decayed_weights(2 * strength)


def by_norm(order: str) -> optax.GradientTransformation:
    """Turns each image's gradient into a direction: its sign ("linf"), or length 1 ("l2").

    It is the steepest way within a small ball of that norm.
    """

    def direction(gradient: Array) -> Array:
        if order == "linf":
            return jnp.sign(gradient)
        norm = jnp.sqrt((gradient**2).sum(tuple(range(1, gradient.ndim)), keepdims=True))
        return gradient / jnp.maximum(norm, 1e-12)

    return optax.stateless(lambda updates, params: jax.tree.map(direction, updates))


def by_deviation() -> optax.GradientTransformation:
    """Divides each image's gradient by its standard deviation, as DeepDream's steps are."""

    def scaled(gradient: Array) -> Array:
        axes = tuple(range(1, gradient.ndim))
        return gradient / (jnp.std(gradient, axes, keepdims=True) + 1e-8)

    return optax.stateless(lambda updates, params: jax.tree.map(scaled, updates))


def blur(images: Images, sigma: float) -> Images:
    """Blurs by a Gaussian of `sigma` pixels; beyond the border the border goes on."""
    reach = max(int(3 * sigma + 0.5), 1)
    offsets = jnp.arange(-reach, reach + 1)
    weights = jnp.exp(-0.5 * (offsets / sigma) ** 2)
    weights = weights / weights.sum()
    for axis in (1, 2):
        sides = [(0, 0)] * 4
        sides[axis] = (reach, reach)
        padded, size = jnp.pad(images, sides, mode="edge"), images.shape[axis]
        parts = [
            weights[i] * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
            for i in range(2 * reach + 1)
        ]
        images = jnp.stack(parts).sum(0)
    return images


def every(steps: int, change: Projection) -> Projection:
    """Makes a change after every so many steps alone."""
    if steps == 1:
        return change

    def projection(images: Images, gradient: Images, step: Array) -> Images:
        due = (step + 1) % steps == 0
        return jax.lax.cond(due, lambda x: change(x, gradient, step), lambda x: x, images)

    return projection


def blur_every(steps: int, sigma: float) -> Projection:
    """Blurs by a Gaussian after every so many steps: high frequencies cost more than they bring."""
    return every(steps, lambda images, gradient, step: blur(images, sigma))


def _zero_below(images: Images, sizes: Array, share: float) -> Images:
    limit = jnp.quantile(sizes, share, axis=(1, 2), keepdims=True)
    return jnp.where(sizes[..., None] >= limit[..., None], images, 0.0)


def clip_small_norms(share: float) -> Projection:
    """Sets the share of pixels whose norm over channels is smallest to 0."""

    def projection(images: Images, gradient: Images, step: Array) -> Images:
        return _zero_below(images, jnp.linalg.norm(images, axis=-1), share)

    return projection


def clip_small_gradients(share: float) -> Projection:
    """Sets the share of pixels with the smallest norm of the gradient to 0."""

    def projection(images: Images, gradient: Images, step: Array) -> Images:
        return _zero_below(images, jnp.linalg.norm(gradient, axis=-1), share)

    return projection


def clip_small_contributions(share: float) -> Projection:
    """Sets the share of pixels that contribute least to 0: |sum over channels of x da/dx|.

    Yosinski et al., "Understanding neural networks through deep visualization", 2015, section 4.
    """

    def projection(images: Images, gradient: Images, step: Array) -> Images:
        return _zero_below(images, jnp.abs((images * gradient).sum(-1)), share)

    return projection


def keep_between(low: float | Array, high: float | Array) -> Projection:
    """Moves values outside to the nearest inside."""
    return lambda images, gradient, step: jnp.clip(images, low, high)


def keep_near(original: Images, epsilon: float, order: str) -> Projection:
    """Keeps images in a ball around the original: "linf" or "l2", in pixel units."""
    return lambda images, gradient, step: nearest_within(images, original, epsilon, order)


def nearest_within(images: Images, original: Images, epsilon: float | Array, order: str) -> Images:
    """Projects onto the ball of radius epsilon around each original."""
    change = images - original
    if order == "linf":
        return original + jnp.clip(change, -epsilon, epsilon)
    norm = jnp.sqrt((change**2).sum((1, 2, 3), keepdims=True))
    return original + change * jnp.minimum(1.0, epsilon / jnp.maximum(norm, 1e-12))


def jitter(images: Images, key: Array, pixels: int) -> Images:
    """Shifts images by up to so many pixels, round the border: the same way for all."""
    if not pixels:
        return images
    shift = jax.random.randint(key, (2,), -pixels, pixels + 1)
    return jnp.roll(images, shift, (1, 2))
