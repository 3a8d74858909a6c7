"""Digits that move: a network that has learned them where they stand."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from sklearn.datasets import load_digits

from research.course.config import WorkedExamplesConfig
from research.course.worked import Worked, step
from research.figures import course as figures
from research.nn.convolution import Conv
from research.nn.flatten import flatten
from research.nn.pooling import max_pool
from research.training.optimizers import make

STEPS, BATCH = 300, 128


class Small(nn.Module):
    """A convolution, 2x2 pooling, a dense layer."""

    @nn.compact
    def __call__(self, images: Float[Array, "batch 8 8 1"]) -> Float[Array, "batch 10"]:
        x = max_pool(nn.relu(Conv(16, 3, name="conv")(images)), 2, 2)
        return nn.Dense(10, name="fc")(flatten(x))


def shifts(config: WorkedExamplesConfig) -> Worked:
    """Trains on 8x8 digits where they stand, or moved, or mirrored; tests them moved round."""
    digits = load_digits()
    images = jnp.asarray(digits.images[..., None] / 16, jnp.float32)
    labels = jnp.asarray(digits.target)
    trained, test = 1297, slice(1297, None)
    model = Small()
    optimizer = make("adam", optax.constant_schedule(0.005))

    def loss(variables: Any, x: Array, y: Array) -> Array:
        logits: Any = model.apply(variables, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def fit(kind: str) -> Any:
        def advance(carry: Any, key: Array) -> Any:
            rows = jax.random.randint(key, (BATCH,), 0, trained)
            x = images[rows]
            if kind == "moved":
                x = jnp.roll(x, jax.random.randint(key, (), -2, 3), axis=2)
            if kind == "mirrored":
                x = jnp.where((rows % 2 == 0)[:, None, None, None], x[:, :, ::-1], x)
            gradient = jax.grad(loss)(carry[0], x, labels[rows])
            updates, state = optimizer.update(gradient, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        first = model.init(jax.random.key(0), images[:1])
        keys = jax.random.split(jax.random.key(1), STEPS)
        return jax.lax.scan(advance, (first, optimizer.init(first)), keys)[0][0]

    def accuracies(kind: str) -> Array:
        variables = fit(kind)

        def at(shift: Array) -> Array:
            logits: Any = model.apply(variables, jnp.roll(images[test], shift, axis=2))
            return (logits.argmax(-1) == labels[test]).mean()

        return jax.vmap(at)(jnp.arange(3))

    kinds = ("where they stand", "moved", "mirrored")
    run = jax.jit(lambda: [accuracies(kind) for kind in kinds])
    found = {kind: np.asarray(values) for kind, values in zip(kinds, run(), strict=True)}
    plain, moved, mirrored = (found[kind] for kind in kinds)
    places = np.arange(3)
    return Worked(
        [
            step(
                "test accuracy at shifts of 0, 1 and 2 pixels, by what training showed",
                *(f"{kind:18} {v[0]:.3f} {v[1]:.3f} {v[2]:.3f}" for kind, v in found.items()),
            )
        ],
        {
            "still_accuracy": (float(plain[0]), "where they stand; must be above 0.9"),
            "shifted_accuracy": (float(plain[2]), "2 pixels off; must be below 0.7"),
            "shifted_accuracy_learned": (
                float(moved[2]),
                "2 pixels off, after training on moved digits; above that without",
            ),
            "mirrored_accuracy": (
                float(mirrored[0]),
                "after training with half the digits mirrored; below that without",
            ),
        },
        lambda: {
            "shifts": figures.curves(
                {"8x8 digits": {f"trained on: {k}": (places, v) for k, v in found.items()}},
                ("pixels to the right", "test accuracy"),
            )
        },
    )
