"""Pooling against numbers from lectures and plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.hardware.target import Target, compiled_for
from research.nn.pooling import (
    adaptive_average_pool,
    adaptive_max_pool,
    average_pool,
    blur_pool,
    global_average_pool,
    global_max_pool,
    max_pool,
    spatial_pyramid_pool,
)

IMAGE = jnp.array(
    [[1, 3, 2, 1, 3], [2, 9, 1, 1, 5], [3, 2, 3, 2, 3], [8, 3, 5, 1, 0], [5, 6, 1, 2, 9]], float
)[None, ..., None]


def test_max_pooling_of_the_lecture_s_image():
    np.testing.assert_array_equal(
        max_pool(IMAGE, 3, 1)[0, ..., 0], [[9, 9, 5], [9, 9, 5], [8, 6, 9]]
    )


def test_average_pooling_of_the_lecture_s_image():
    image = jnp.array([[1, 3, 2, 1], [2, 9, 1, 1], [1, 4, 2, 3], [5, 6, 1, 2]], float)
    pooled = average_pool(image[None, ..., None], 2, 2)
    np.testing.assert_array_equal(pooled[0, ..., 0], [[3.75, 1.25], [4, 2]])


@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), (1, 2, 0), (5, 3, 2)]
)
@pytest.mark.parametrize("backend", ["cpu", "gpu"])  # which formulation is taken
@pytest.mark.parametrize("kind", ["max", "average"])
def test_pooling_and_its_gradient_are_xla_s(kind, size, stride, padding, backend):
    maps = np.random.default_rng(0).integers(0, 4, size=(2, 9, 8, 3))  # many equal values
    weights = np.random.default_rng(1).normal(size=(9, 8)).astype("f")

    def value_and_gradient(pool):
        def f(maps):
            pooled = pool(maps)
            return (pooled * weights[: pooled.shape[1], : pooled.shape[2], None]).sum(), pooled

        return jax.jit(jax.value_and_grad(f, has_aux=True))(jnp.array(maps, jnp.float32))

    def xla(maps):
        window, strides = (1, size, size, 1), (1, stride, stride, 1)
        pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        if kind == "max":
            return jax.lax.reduce_window(maps, -np.inf, jax.lax.max, window, strides, pads)
        return jax.lax.reduce_window(maps, 0.0, jax.lax.add, window, strides, pads) / size**2

    pool = {"max": max_pool, "average": average_pool}[kind]

    with compiled_for(Target(backend)):
        found = value_and_gradient(lambda x: pool(x, size, stride, padding))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        found,
        value_and_gradient(xla),
    )


def test_max_pooling_does_not_hide_what_is_not_a_number():
    for place in range(4):
        image = jnp.arange(4.0).at[place].set(jnp.nan).reshape(1, 2, 2, 1)
        assert np.isnan(jax.jit(lambda x: max_pool(x, 2, 2))(image)).all()


def test_pooling_keeps_the_channels():
    assert max_pool(jnp.zeros((1, 5, 5, 2)), 3, 1).shape == (1, 3, 3, 2)


def test_the_gradient_of_max_pooling_goes_to_the_maximum_alone():
    gradient = jax.jit(jax.grad(lambda x: max_pool(x, 3, 3, ceil=True).sum()))(IMAGE)[0, ..., 0]
    expected = np.zeros((5, 5))
    expected[1, 1] = expected[1, 4] = expected[3, 0] = expected[4, 4] = 1  # 9, 5, 8 and 9
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize(("size", "floor", "ceil"), [(5, 2, 2), (6, 2, 3), (7, 3, 3)])
def test_ceil_pools_what_the_last_window_only_partly_covers(size, floor, ceil):
    image = jnp.zeros((1, size, size, 1))
    assert jax.eval_shape(lambda x: max_pool(x, 3, 2), image).shape[1] == floor
    assert jax.eval_shape(lambda x: max_pool(x, 3, 2, ceil=True), image).shape[1] == ceil


@pytest.mark.parametrize("size", [(6, 7), (1, 2)])
def test_blurring_averages_by_distance_and_reflects_at_borders(size):
    maps = np.random.default_rng(0).normal(size=(1, *size, 2)).astype("f")
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
    pooled = blur_pool(jnp.array(maps), 2)
    assert pooled.shape[1:3] == ((size[0] + 1) // 2, (size[1] + 1) // 2)
    for row, column in np.ndindex(*pooled.shape[1:3]):
        seen = padded[0, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
        expected = (seen * weights[:, :, None]).sum((0, 1))
        np.testing.assert_allclose(pooled[0, row, column], expected, rtol=1e-5, atol=1e-6)


def test_global_pooling_is_over_all_places():
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("f")
    np.testing.assert_allclose(global_average_pool(jnp.array(maps)), maps.mean((1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(global_max_pool(jnp.array(maps)), maps.max((1, 2)))


@pytest.mark.parametrize("shape", [(7, 5), (3, 4), (1, 2), (6, 12)])
@pytest.mark.parametrize(
    ("pool", "reduce"), [(adaptive_average_pool, np.mean), (adaptive_max_pool, np.max)]
)
def test_adaptive_pooling_against_a_loop_over_bins(shape, pool, reduce):
    maps = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype("f")
    rows, columns = 3, 4
    expected = np.zeros((2, rows, columns, 3))
    for i in range(rows):
        for j in range(columns):
            top, bottom = i * shape[0] // rows, int(np.ceil((i + 1) * shape[0] / rows))
            left, right = j * shape[1] // columns, int(np.ceil((j + 1) * shape[1] / columns))
            expected[:, i, j] = reduce(maps[:, top:bottom, left:right], (1, 2))
    np.testing.assert_allclose(
        jax.jit(lambda x: pool(x, rows, columns))(maps), expected, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("shape", [(13, 13), (10, 7), (3, 5), (1, 1)])
def test_a_spatial_pyramid_has_one_size_for_maps_of_any_size(shape):
    maps = np.random.default_rng(0).normal(size=(2, *shape, 8)).astype("f")
    pooled = jax.jit(lambda x: spatial_pyramid_pool(x, (1, 2, 4)))(maps)
    assert pooled.shape == (2, 8 * (1 + 4 + 16))
    np.testing.assert_array_equal(pooled[:, :8], maps.max((1, 2)))  # the top of the pyramid
