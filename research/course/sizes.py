"""Sizes, channels and costs of convolutions."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research.course.config import WorkedExamplesConfig
from research.course.convolution import A6, VERTICAL, slide
from research.course.worked import Worked, largest_difference, step
from research.figures import course as figures
from research.nn.convolution import Conv, convolution, output_size
from research.nn.mobile import DepthwiseSeparable

# (size, filter, padding, stride)
TABLE = (
    (6, 3, 0, 1),
    (6, 3, 1, 1),
    (7, 2, 0, 2),
    (6, 3, 0, 2),
    (39, 3, 0, 1),
    (28, 2, 0, 2),
    (224, 11, 0, 4),
    (227, 11, 0, 4),
    (224, 11, 2, 4),
)


def strides(config: WorkedExamplesConfig) -> Worked:
    """Moves a filter two cells at a time; tabulates floor((n + 2p - f) / s + 1)."""
    single, double = np.asarray(slide(A6, VERTICAL)), np.asarray(slide(A6, VERTICAL, stride=2))
    sizes = {(n, f, p, s): output_size(n, f, s, p) for n, f, p, s in TABLE}
    rows = [
        f"n={n:3} f={f:2} p={p} s={s}: {(n + 2 * p - f) / s + 1:6.2f} -> {size}"
        for (n, f, p, s), size in sizes.items()
    ]
    return Worked(
        [
            step("6x6 * vertical, stride 1", single),
            step("stride 2: every second of them", double),
            step("floor((n + 2p - f) / s + 1): cells beyond the image are left out", *rows),
        ],
        {
            "stride_two_difference": (
                largest_difference(double, single[::2, ::2]),
                "between stride 2 and every second answer of stride 1; must be 0",
            ),
            "stride_two_first": (float(double[0, 0]), "must be -5"),
            "stride_two_last": (float(double[1, 1]), "must be -4"),
            **{
                f"size_{n}_{f}_{p}_{s}": (float(size), f"n={n}, f={f}, p={p}, s={s}")
                for (n, f, p, s), size in sizes.items()
            },
        },
        lambda: {"strides": figures.grids({"stride 1": single, "stride 2": double})},
    )


def parameters_of(layer: nn.Module, *inputs: Any) -> tuple[int, tuple[int, ...]]:
    """Counts a layer's parameters for an input of this shape, and its output's shape; by shape."""
    images = jax.ShapeDtypeStruct(inputs, jnp.float32)
    kind: Any = {"train": False} if isinstance(layer, DepthwiseSeparable) else {}
    output, variables = jax.eval_shape(
        lambda x: layer.init_with_output(jax.random.key(0), x, **kind), images
    )
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"])), output.shape


def products_of(features: int, size: int, channels: int, places: int, groups: int = 1) -> int:
    """Counts a convolution's multiplications: its kernel's numbers at each place of the output."""
    shape = jax.eval_shape(
        lambda: Conv(features, size, groups=groups, use_bias=False).init(
            jax.random.key(0), jnp.zeros((1, size, size, channels))
        )
    )["params"]["kernel"].shape
    return int(np.prod(shape)) * places


def volumes(config: WorkedExamplesConfig) -> Worked:
    """Convolves 6x6x3 with one and two filters; counts parameters; adds a bias and ReLU."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 5, (1, 6, 6, 3)).astype(np.float32)
    kernel = rng.integers(-1, 2, (3, 3, 3, 2)).astype(np.float32)
    out = np.asarray(convolution(jnp.asarray(image), jnp.asarray(kernel)))[0]
    planes = [np.asarray(slide(image[0, :, :, c], kernel[:, :, c, 0])) for c in range(3)]
    layer = Conv(2, 3, padding="VALID")
    variables: Any = {"params": {"kernel": kernel, "bias": np.array([1.0, -2.0], np.float32)}}
    z = np.asarray(layer.apply(variables, jnp.asarray(image)))[0]
    activated = np.asarray(nn.relu(z))
    try:
        convolution(jnp.asarray(image[..., :2]), jnp.asarray(kernel))
        refused = 0.0
    except (TypeError, ValueError):
        refused = 1.0
    one, two = (parameters_of(Conv(n, 3, padding="VALID"), 1, 6, 6, 3) for n in (1, 2))
    return Worked(
        [
            step(
                "6x6x3 with a 3x3x3 filter: each channel has its own plane of the filter", *planes
            ),
            step("their sum is the filter's one output plane", out[..., 0]),
            step("two filters: 4x4x2; the second plane", out[..., 1]),
            step("z = that + bias (1, -2), a = relu(z); the first plane", activated[..., 0]),
            step(
                "n_C of the layer is its number of filters",
                f"one filter {one[1]}, {one[0]} parameters; two {two[1]}, {two[0]}",
                "(f f n_C' + 1) n_C: a filter has as many channels as its input, 3",
            ),
        ],
        {
            "sum_difference": (
                largest_difference(np.sum(planes, axis=0), out[..., 0]),
                "between the sum of three planes and the layer; must be 0",
            ),
            "out_rows": (float(two[1][1]), "must be 4"),
            "out_channels": (float(two[1][3]), "of two filters; must be 2"),
            "one_filter_parameters": (float(one[0]), "must be 28"),
            "two_filter_parameters": (float(two[0]), "must be 56"),
            "mismatch_refused": (refused, "1: a filter of 3 channels on 2 is an error"),
            "layer_difference": (
                largest_difference(activated, np.maximum(out + np.array([1.0, -2.0]), 0)),
                "between relu(conv + bias) and the layer with its activation; must be 0",
            ),
        },
        lambda: {
            "volumes": figures.grids(
                {f"channel {c}": planes[c] for c in range(3)}
                | {"sum: filter 1": out[..., 0], "filter 2": out[..., 1]}
            )
        },
    )


def one_by_one(config: WorkedExamplesConfig) -> Worked:
    """Compares a 1x1 convolution of 6x6x32 with a dense layer at every pixel."""
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=(1, 6, 6, 32)), jnp.float32)
    counts = {k: parameters_of(Conv(k, 1), 1, 6, 6, 32) for k in (1, 5, 16)}
    kernel = rng.normal(size=(32, 5)).astype(np.float32)
    variables: Any = {"params": {"kernel": kernel, "bias": np.ones(5, np.float32)}}
    dense = nn.Dense(5).apply(variables, image.reshape(36, 32))
    shaped: Any = {"params": {"kernel": kernel[None, None], "bias": np.ones(5, np.float32)}}
    conv = np.asarray(Conv(5, 1).apply(shaped, image))
    return Worked(
        [
            step(
                "6x6x32 with k filters of 1x1x32",
                *(f"k={k:2}: {shape}, {n} parameters = 33 k" for k, (n, shape) in counts.items()),
            ),
            step("a pixel's 32 numbers become k, as in a dense layer", conv[0, 0, 0]),
        ],
        {
            "dense_difference": (
                largest_difference(conv.reshape(36, 5), np.asarray(dense)),
                "between a dense layer per pixel and the convolution; must be below 1e-5",
            ),
            "parameters_a_filter": (counts[5][0] / 5, "must be 33"),
            "channels": (float(counts[16][1][3]), "of 16 filters; must be 16"),
        },
        lambda: {
            "one_by_one": figures.bars(
                {"parameters": {f"{k} filters": float(n) for k, (n, _) in counts.items()}}
            )
        },
    )


def costs(config: WorkedExamplesConfig) -> Worked:
    """Counts parameters and multiplications of the lecture's layers."""
    shared, shape = parameters_of(Conv(6, 5, padding="VALID"), 1, 32, 32, 3)
    dense, _ = parameters_of(nn.Dense(int(np.prod(shape))), 1, 32 * 32 * 3)
    hundred, _ = parameters_of(nn.Dense(10), 1, 100)
    small, large = (parameters_of(nn.Dense(10), 1, n * n)[0] - 10 for n in (64, 128))
    direct = products_of(32, 5, 192, 28 * 28)
    through = products_of(16, 1, 192, 28 * 28) + products_of(32, 5, 16, 28 * 28)
    # 6x6x3 with five 3x3 filters, without padding: 4x4 places.
    plain = products_of(5, 3, 3, 16)
    depthwise, pointwise = products_of(3, 3, 3, 16, groups=3), products_of(5, 1, 3, 16)
    separable = depthwise + pointwise
    counted, _ = parameters_of(DepthwiseSeparable(5), 1, 6, 6, 3)
    return Worked(
        [
            step(
                "32x32x3 to 28x28x6 by 5x5 filters",
                f"shared {shared:,} parameters, a dense layer {dense:,}",
            ),
            step("100 inputs, 10 outputs", f"{hundred:,} parameters: 1,000 weights, 10 biases"),
            step(
                "64x64 pixels against 128x128",
                f"{64**2:,} and {128**2:,} pixels; a dense layer of 10 units {small:,} and "
                f"{large:,} weights, a convolution as many as before",
            ),
            step(
                "28x28x192 to 28x28x32 by 5x5, multiplications",
                f"direct {direct:,}; through 16 channels of a 1x1 {through:,}",
            ),
            step(
                "6x6x3 to 4x4x5 by 3x3, multiplications",
                f"{plain:,} against {depthwise} depthwise + {pointwise} pointwise = {separable}",
                f"ratio {separable / plain:.4f} = 1/5 + 1/9",
                f"{counted} parameters of the library's block, with its batch normalisation",
            ),
        ],
        {
            "shared_parameters": (float(shared), "must be 456"),
            "dense_parameters": (float(dense), "for the same maps; must be 14,455,392"),
            "hundred_to_ten": (float(hundred), "parameters; must be 1,010"),
            "pixel_factor": (128**2 / 64**2, "from 64x64 to 128x128; must be 4"),
            "dense_factor": (large / small, "of a dense layer's weights; must be 4"),
            "direct_products": (float(direct), "must be 120,422,400"),
            "bottleneck_products": (float(through), "must be 12,443,648"),
            "plain_products": (float(plain), "must be 2,160"),
            "separable_products": (float(separable), "must be 672"),
            "separable_ratio": (separable / plain, "must be 1/5 + 1/9"),
        },
        lambda: {
            "costs": figures.bars(
                {
                    "parameters, 32x32x3 to 28x28x6": {"shared": shared, "dense": dense},
                    "products, 28x28x192 to 28x28x32": {"5x5": direct, "through 16": through},
                    "products, 6x6x3 to 4x4x5": {"3x3": plain, "depthwise separable": separable},
                }
            )
        },
    )
