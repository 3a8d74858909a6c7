"""Images that are optimised together do not depend on one another."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.understanding.optimisation import lbfgs

TARGETS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 3, 1)), jnp.float32)
STEEP = jnp.array([1.0, 300.0, 0.02])  # of one image a step is right that is wrong for another


def value(p, rows):
    away = (p - TARGETS[rows]) * jnp.arange(1.0, 7.0).reshape(2, 3, 1)
    return (STEEP[rows, None, None, None] * (away**2 + 0.1 * away**4)).sum((1, 2, 3))


@jax.jit
def optimised(inputs):
    """Twenty steps on three images, which are of these inputs."""
    optimizer = lbfgs(lambda p, rows: value(p, inputs[rows]))

    def step(carry, _):
        params, state = carry
        gradients = jax.grad(lambda x: value(x["image"], inputs).sum())(params)
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    params = {"image": jnp.zeros(TARGETS.shape)}
    start = params, optimizer.init(params)
    return jax.lax.scan(step, start, length=20)[0][0]["image"]


def test_each_image_has_its_own_line_search_and_memory():
    together = optimised(jnp.arange(3))
    for row in range(3):  # beside copies of itself, it goes the same way
        np.testing.assert_allclose(together[row], optimised(jnp.full(3, row))[0], atol=1e-5)
    np.testing.assert_allclose(together, TARGETS, atol=1e-4)
