"""Normalisation and dropout: against loops, and the same on one device as on eight."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.nn.normalisation import batch_norm, local_response_normalisation
from research.nn.regularisation import Dropout


def test_local_response_normalisation_against_the_paper_s_sum():
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, 8)).astype("f") * 20
    expected = np.empty_like(maps)
    for i in range(8):
        near = maps[..., max(0, i - 2) : min(7, i + 2) + 1]
        expected[..., i] = maps[..., i] / (2 + 1e-4 * (near**2).sum(-1)) ** 0.75
    np.testing.assert_allclose(
        local_response_normalisation(jnp.array(maps)), expected, rtol=1e-4, atol=1e-5
    )


class Normalised(nn.Module):
    axis: str | None = None

    @nn.compact
    def __call__(self, x, train):
        return batch_norm(train, self.axis)(name="bn")(x)


def maps_and_variables():
    maps = jnp.array(np.random.default_rng(0).normal(3, 2, size=(16, 4, 4, 5)), jnp.float32)
    return maps, Normalised().init(jax.random.key(0), maps, False)


def test_batch_normalisation_in_training_and_evaluation():
    maps, variables = maps_and_variables()
    x, changes = Normalised().apply(variables, maps, True, mutable=["batch_stats"])
    mean, variance = (np.asarray(f(maps, axis=(0, 1, 2))) for f in (jnp.mean, jnp.var))
    expected = (maps - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-5)
    running = changes["batch_stats"]["bn"]
    np.testing.assert_allclose(running["mean"], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(running["var"], 0.9 + 0.1 * variance, rtol=1e-4)
    x = Normalised().apply(variables | changes, maps, False)
    expected = (maps - 0.1 * mean) / np.sqrt(0.9 + 0.1 * variance + 1e-5)
    np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-5)


def test_batch_normalisation_over_eight_devices_is_that_of_one():
    maps, variables = maps_and_variables()

    def output_and_gradient(axis, maps):
        def f(scale_and_bias):
            x, changes = Normalised(axis).apply(
                variables | {"params": scale_and_bias}, maps, True, mutable=["batch_stats"]
            )
            return (x**3).sum(), (x, changes)

        gradient, (x, changes) = jax.grad(f, has_aux=True)(variables["params"])
        return x, (gradient if axis is None else jax.lax.psum(gradient, axis), changes)

    one = output_and_gradient(None, maps)
    split = jax.pmap(
        lambda x: output_and_gradient("data", x), axis_name="data", out_axes=(0, None)
    )(maps.reshape(8, 2, 4, 4, 5))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a, b.reshape(a.shape), rtol=2e-4, atol=2e-3
        ),  # sums of cubes up to 300
        one,
        split,
    )


def test_statistics_stay_float32_when_images_are_bfloat16():
    maps, variables = maps_and_variables()
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), variables["params"])
    x, changes = Normalised().apply(
        variables | {"params": low}, maps.astype(jnp.bfloat16), True, mutable=["batch_stats"]
    )
    assert x.dtype == jnp.bfloat16
    assert {a.dtype for a in jax.tree.leaves(changes)} == {jnp.dtype("float32")}


def drop(x, axis=None, **options):
    rngs = {"dropout": jax.random.key(1)}
    return Dropout(0.3, axis, **options).apply({}, x, True, rngs=rngs)


def test_dropout_keeps_the_expectation():
    x = drop(jnp.ones((200, 500)))
    assert set(np.unique(x)) == {0.0, np.float32(1 / 0.7)}
    assert abs(float(x.mean()) - 1) < 5 * np.sqrt(0.3 / 0.7 / x.size)


@pytest.mark.parametrize("shared_axes", [(), (1, 2), (1, 2, 3)])
def test_the_dropout_mask_over_eight_devices_is_that_of_one(shared_axes):
    x = jnp.ones((16, 3, 4, 5))
    split = jax.pmap(lambda x: drop(x, "data", shared_axes=shared_axes), axis_name="data")(
        x.reshape(8, 2, 3, 4, 5)
    )
    whole = drop(x, shared_axes=shared_axes)
    np.testing.assert_array_equal(split.reshape(x.shape), whole)
    for shared in shared_axes:
        assert (whole == jnp.take(whole, jnp.array([0]), axis=shared)).all()


def test_dropout_does_nothing_in_evaluation():
    x = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(Dropout(0.5).apply({}, x, False), x)
