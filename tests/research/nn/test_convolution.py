"""Convolutions against numbers from lectures, SciPy's loops and XLA's own operators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from research.hardware.target import Target, compiled_for
from research.nn.convolution import Conv, convolution, explicit_padding, output_size

IMAGE = np.array(
    [
        [3, 0, 1, 2, 7, 4],
        [1, 5, 8, 9, 3, 1],
        [2, 7, 2, 5, 1, 3],
        [0, 1, 3, 1, 7, 8],
        [4, 2, 1, 6, 2, 8],
        [2, 4, 5, 2, 3, 9],
    ],
    np.float32,
)
VERTICAL_EDGE = np.array([[1, 0, -1]] * 3, np.float32)


def single(image, kernel, **options):
    """Convolves one channel with one filter."""
    return convolution(
        jnp.array(image)[None, ..., None], jnp.array(kernel)[..., None, None], **options
    )[0, ..., 0]


def test_a_vertical_edge_filter_on_the_lecture_s_image():
    expected = [[-5, -4, 0, 8], [-10, -2, 2, 3], [0, -2, -4, -7], [-3, -2, -3, -16]]
    np.testing.assert_array_equal(single(IMAGE, VERTICAL_EDGE), expected)


def test_a_vertical_edge_filter_on_a_half_bright_image():
    half = np.repeat([[10, 10, 10, 0, 0, 0]], 6, 0).astype("f")
    np.testing.assert_array_equal(single(half, VERTICAL_EDGE), [[0, 30, 30, 0]] * 4)


def test_two_filters_on_a_volume_give_two_maps():
    assert convolution(jnp.zeros((1, 6, 6, 3)), jnp.zeros((3, 3, 3, 2))).shape == (1, 4, 4, 2)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_the_output_size_is_the_formula_s(stride, padding, dilation):
    maps = convolution(jnp.zeros((1, 11, 8, 1)), jnp.zeros((3, 3, 1, 1)), stride, padding, dilation)
    rows, columns = (output_size(n, 3, stride, padding, dilation) for n in (11, 8))
    assert maps.shape == (1, rows, columns, 1)


@pytest.mark.parametrize(("padding", "mode"), [("VALID", "valid"), ("SAME", "same"), (2, "full")])
def test_padding_as_scipy_names_it(padding, mode):
    kernel = np.random.default_rng(0).normal(size=(3, 3)).astype("f")
    expected = signal.correlate2d(IMAGE, kernel, mode)
    np.testing.assert_allclose(
        single(IMAGE, kernel, padding=padding), expected, rtol=1e-4, atol=1e-4
    )


def test_same_padding_with_a_stride_puts_the_odd_cell_last():
    maps = single(IMAGE, VERTICAL_EDGE, stride=2, padding="SAME")
    padded = np.pad(IMAGE, ((0, 1), (0, 1)))
    np.testing.assert_array_equal(
        maps, signal.correlate2d(padded, VERTICAL_EDGE, "valid")[::2, ::2]
    )


def test_a_dilated_filter_is_one_with_holes():
    kernel = np.random.default_rng(0).normal(size=(3, 2)).astype("f")
    holes = np.zeros((5, 3), "f")
    holes[::2, ::2] = kernel
    expected = signal.correlate2d(IMAGE, holes, "valid")
    np.testing.assert_allclose(single(IMAGE, kernel, dilation=2), expected, rtol=1e-4, atol=1e-4)


def test_a_1x1_convolution_is_a_dense_layer_at_every_place():
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(2, 5, 4, 3)).astype("f"), rng.normal(size=(3, 6)).astype("f")
    maps = convolution(jnp.array(images), jnp.array(kernel)[None, None])
    np.testing.assert_allclose(maps, images @ kernel, rtol=1e-4, atol=1e-5)


def test_gradients_are_the_rotated_full_convolution_and_the_correlation_with_the_input():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3)).astype("f")
    output_gradient = rng.normal(size=(4, 4)).astype("f")
    _, pullback = jax.vjp(single, jnp.array(IMAGE), jnp.array(kernel))
    by_image, by_kernel = pullback(jnp.array(output_gradient))
    rotated = np.rot90(kernel, 2)
    np.testing.assert_allclose(
        by_image, signal.correlate2d(output_gradient, rotated, "full"), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        by_kernel, signal.correlate2d(IMAGE, output_gradient, "valid"), rtol=1e-4, atol=1e-4
    )


def test_the_layer_pads_as_pytorch_models_do():
    shape = jax.eval_shape(
        lambda: Conv(4, (3, 5), 2).init_with_output(jax.random.key(0), jnp.zeros((1, 8, 9, 2)))[0]
    ).shape
    assert shape == (1, output_size(8, 3, 2, 1), output_size(9, 5, 2, 2), 4)


def test_the_layer_computes_in_the_precision_of_its_input():
    images = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    variables = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16), Conv(3, 3).init(jax.random.key(0), images)
    )
    assert Conv(3, 3).apply(variables, images).dtype == jnp.bfloat16


def xla(images, kernel, stride, padding, dilation, groups):
    """XLA's own operator, where `convolution` has formulations of its own on CPU."""
    return jax.lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        explicit_padding(padding, images.shape[1:3], kernel.shape[:2], stride, dilation),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


GROUPED = [  # sides of the filter, stride, padding, dilation, groups, channels out
    ((3, 3), 1, 1, 1, 6, 6),
    ((3, 3), 2, 1, 1, 6, 6),
    ((5, 5), 2, "SAME", 1, 6, 12),
    ((3, 2), 3, "VALID", 2, 6, 6),
    ((1, 1), 2, 0, 1, 6, 6),
    ((3, 3), 1, ((2, 0), (1, 3)), 1, 6, 6),
    ((3, 3), 1, 1, 1, 2, 4),
    ((3, 5), 2, "SAME", 2, 3, 3),
]
POINTWISE = [((1, 1), 1, 0, 1, 1, 4), ((1, 1), 2, "SAME", 1, 1, 4), ((1, 1), 1, 1, 2, 1, 4)]


@pytest.mark.parametrize(
    ("size", "sides", "stride", "padding", "dilation", "groups", "out"),
    [((9, 8), *case) for case in GROUPED]
    + [((9, 8), *case) for case in POINTWISE]
    + [((35, 34), *case) for case in POINTWISE],
)
def test_convolution_and_its_gradients_are_xla_s(
    size, sides, stride, padding, dilation, groups, out
):
    rng = np.random.default_rng(0)
    images = jnp.array(rng.normal(size=(2, *size, 6)), jnp.float32)
    kernel = jnp.array(rng.normal(size=(*sides, 6 // groups, out)), jnp.float32)

    def value_and_gradients(convolve):
        def f(images, kernel):
            return (convolve(images, kernel, stride, padding, dilation, groups) ** 3).sum()

        return jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(images, kernel)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5 * abs(b).max()),
        value_and_gradients(convolution),
        value_and_gradients(xla),
    )


def depthwise_arguments():
    rng = np.random.default_rng(0)
    images = jnp.array(rng.normal(size=(2, 6, 5, 3)), jnp.float32)
    kernel = jnp.array(rng.normal(size=(3, 3, 1, 3)), jnp.float32)
    return images, kernel


def cubed(convolve):
    """A function of a depthwise convolution that has derivatives of any order."""
    return lambda images, kernel: (convolve(images, kernel, 2, 1, 1, 3) ** 3).sum()


def test_second_derivatives_of_a_depthwise_convolution_are_xla_s():
    def second(convolve):
        def norm(images, kernel):
            gradients = jax.grad(cubed(convolve), argnums=(0, 1))(images, kernel)
            return sum((g**2).sum() for g in gradients)

        return jax.jit(jax.grad(norm, argnums=(0, 1)))(*depthwise_arguments())

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * abs(b).max()),
        second(convolution),
        second(xla),
    )


def test_forward_mode_of_a_depthwise_convolution_is_xla_s():
    arguments = depthwise_arguments()
    directions = (jnp.cos(arguments[0]), jnp.sin(arguments[1]))

    def forward(convolve):
        """The slope, and the Hessian times a direction (forward over reverse)."""
        slope = lambda f: jax.jvp(f, arguments, directions)[1]
        gradient = jax.grad(cubed(convolve), argnums=(0, 1))
        return jax.jit(lambda: (slope(cubed(convolve)), slope(gradient)))()

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * abs(b).max()),
        forward(convolution),
        forward(xla),
    )


def test_a_depthwise_convolution_can_be_mapped_over_filters():
    images, kernel = depthwise_arguments()
    kernels = jnp.stack([kernel, 2 * kernel, -kernel])
    mapped = jax.vmap(lambda kernel: convolution(images, kernel, groups=3))(kernels)
    np.testing.assert_allclose(mapped[1], 2 * mapped[0], rtol=1e-5)
    np.testing.assert_allclose(
        mapped[2], xla(images, -kernel, 1, "VALID", 1, 3), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("side", "filter_side", "channels"),
    [(4, 1, 40), (17, 1, 40), (4, 3, 128)],
    ids=["1x1, small map", "1x1, large map", "3x3, small and deep map"],
)
def test_products_of_bfloat16_are_rounded_once(side, filter_side, channels):
    rng = np.random.default_rng(0)
    outside = side + filter_side - 1
    images = jnp.array(rng.normal(size=(3, outside, outside, channels)), jnp.bfloat16)
    kernel = jnp.array(rng.normal(size=(filter_side, filter_side, channels, 130)), jnp.bfloat16)
    weight = jnp.array(rng.normal(size=(3, side, side, 130)), jnp.bfloat16)
    operations = str(jax.make_jaxpr(convolution)(images, kernel))
    assert "low_" in operations and "conv_general" not in operations
    maps, pullback = jax.vjp(convolution, images, kernel)
    low = (maps, *pullback(weight))

    high = [np.asarray(x, np.float64) for x in (images, kernel, weight)]
    seen = np.lib.stride_tricks.sliding_window_view(high[0], (filter_side, filter_side), (1, 2))
    by_images = np.zeros_like(high[0])
    for i in range(filter_side):
        for j in range(filter_side):
            by_images[:, i : i + side, j : j + side] += high[2] @ high[1][i, j].T
    expected = (
        np.einsum("bhwirc,rcio->bhwo", seen, high[1], optimize=True),
        by_images,
        np.einsum("bhwirc,bhwo->rcio", seen, high[2], optimize=True),
    )
    for ours, exact in zip(low, expected, strict=True):
        assert ours.dtype == jnp.bfloat16
        # Half a unit in the last of bfloat16's 8 bits, and float32's own rounding of the sum.
        np.testing.assert_allclose(
            ours.astype("f"), exact, rtol=2**-8, atol=1e-5 * abs(exact).max()
        )


def test_other_backends_take_xla_s_operator():
    rng = np.random.default_rng(0)
    images = jnp.array(rng.normal(size=(2, 6, 5, 3)), jnp.float32)
    kernel = jnp.array(rng.normal(size=(3, 3, 1, 3)), jnp.float32)
    expected = xla(images, kernel, 2, "SAME", 1, 3)
    with compiled_for(Target("gpu")):
        np.testing.assert_array_equal(convolution(images, kernel, 2, "SAME", 1, 3), expected)


def test_a_depthwise_sum_in_bfloat16_is_rounded_once():
    rng = np.random.default_rng(0)
    images = jnp.array(rng.normal(size=(1, 9, 9, 4)), jnp.bfloat16)
    kernel = jnp.array(rng.normal(size=(5, 5, 1, 4)), jnp.bfloat16)
    maps = convolution(images, kernel, padding=2, groups=4)
    high = convolution(images.astype("f"), kernel.astype("f"), padding=2, groups=4)
    assert maps.dtype == jnp.bfloat16
    np.testing.assert_array_equal(maps, high.astype(jnp.bfloat16))
