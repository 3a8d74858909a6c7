"""Dependence of a layer's output on its input: sparse connections, shifts, gaps, stamps, ranks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.course.config import WorkedExamplesConfig
from research.course.convolution import slide
from research.course.worked import Worked, largest_difference, step
from research.figures import course as figures
from research.nn.convolution import Conv
from research.nn.pooling import global_max_pool, max_pool
from research.nn.transposed_convolution import transposed_convolution


def equivariance(config: WorkedExamplesConfig) -> Worked:
    """Looks at which pixels an output depends on, and shifts an image."""
    rng = np.random.default_rng(0)
    kernel = rng.integers(1, 5, (3, 3)).astype(np.float32)
    image = np.zeros((8, 8), np.float32)
    image[2:5, 2:4] = rng.integers(1, 9, (3, 2))
    depends = np.asarray(jax.jacobian(lambda x: slide(x, kernel)[1, 2])(jnp.zeros((6, 6))))

    def mapped(x: np.ndarray, stride: int = 1) -> np.ndarray:
        return np.asarray(slide(x, kernel, padding=1, stride=stride))

    right, right2 = np.roll(image, 1, axis=1), np.roll(image, 2, axis=1)
    before, after = mapped(image), mapped(right)
    strided = mapped(image, 2)
    pooled = [
        float(global_max_pool(jnp.asarray(m)[None, :, :, None])[0, 0]) for m in (before, after)
    ]
    halved = [
        np.asarray(max_pool(jnp.asarray(m)[None, :, :, None], 2, 2))[0, :, :, 0]
        for m in (before, after)
    ]
    return Worked(
        [
            step("one output of a 3x3 filter depends on 9 of 36 pixels", depends),
            step("an image, and its map", image, "", before),
            step("shifted by one to the right, and its map: shifted as well", right, "", after),
            step("pooled 2x2, the two maps differ", *halved),
        ],
        {
            "dependencies": (float((depends != 0).sum()), "pixels that one output sees; must be 9"),
            "shift_difference": (
                largest_difference(np.roll(before, 1, axis=1), after),
                "between the shifted map and the map of the shifted image; must be 0",
            ),
            "stride_shift_one": (
                largest_difference(np.roll(strided, 1, axis=1), mapped(right, 2)),
                "at stride 2 a shift by 1 fails; must be above 0",
            ),
            "stride_shift_two": (
                largest_difference(np.roll(strided, 1, axis=1), mapped(right2, 2)),
                "at stride 2 a shift by 2 is a shift by 1; must be 0",
            ),
            "pooled_difference": (
                largest_difference(*halved),
                "2x2 pooling is not invariance; must be above 0",
            ),
            "global_difference": (
                abs(pooled[0] - pooled[1]),
                "the largest value of all is the same; must be 0",
            ),
        },
        lambda: {
            "equivariance": figures.grids(
                {"image": image, "its map": before, "shifted": right, "the map of that": after}
            )
        },
    )


def dilation(config: WorkedExamplesConfig) -> Worked:
    """Counts weights and reach of 3x3 filters with gaps."""
    fields, sizes, weights = {}, [], []
    for rate in (1, 2, 4):
        layer = Conv(1, 3, dilation=rate, use_bias=False)
        variables: Any = {"params": {"kernel": jnp.ones((3, 3, 1, 1))}}
        run = lambda x, layer=layer, variables=variables: layer.apply(
            variables, x[None, :, :, None]
        )
        out = run(jnp.zeros((11, 11)))
        sizes.append(out.shape[1])
        weights.append(variables["params"]["kernel"].size)
        one = lambda x, run=run: run(x)[0, 5, 5, 0]
        fields[rate] = np.asarray(jax.grad(one)(jnp.zeros((11, 11))))
    extent = {d: float(np.ptp(np.nonzero(f.any(0))[0]) + 1) for d, f in fields.items()}
    image = np.random.default_rng(0).integers(0, 9, (8, 8)).astype(np.float32)
    gap = largest_difference(
        slide(image, fields[1][4:7, 4:7], dilation=1), slide(image, np.ones((3, 3)))
    )
    return Worked(
        [
            step(f"rate {d}: {extent[d]:g} wide, 9 weights", f.astype(int))
            for d, f in fields.items()
        ],
        {
            "extent_1": (extent[1], "k + (k - 1)(d - 1), d = 1; must be 3"),
            "extent_2": (extent[2], "d = 2; must be 5"),
            "extent_4": (extent[4], "d = 4; must be 9"),
            "weights": (float(max(weights)), "at every rate; must be 9"),
            "size_kept": (float(min(sizes)), "of 11 with padding and stride 1; must be 11"),
            "rate_one_difference": (gap, "between rate 1 and plain convolution; must be 0"),
        },
        lambda: {"dilation": figures.grids({f"rate {d}": f for d, f in fields.items()})},
    )


def transposed(config: WorkedExamplesConfig) -> Worked:
    """Stamps a 3x3 filter for each of 2x2 values, two cells apart."""
    values = np.array([[2.0, 1.0], [3.0, 2.0]], np.float32)
    kernel = np.array([[1.0, 2.0, 1.0], [2.0, 0.0, 1.0], [0.0, 2.0, 1.0]], np.float32)

    def run(padding: int) -> np.ndarray:
        maps, filters = jnp.asarray(values)[None, :, :, None], jnp.asarray(kernel)[:, :, None, None]
        return np.asarray(transposed_convolution(maps, filters, 2, padding))[0, :, :, 0]

    whole, cut = run(0), run(1)
    stamps = np.zeros((5, 5), np.float32)
    for (i, j), value in np.ndenumerate(values):
        stamps[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += value * kernel

    def lax(transpose_kernel: bool) -> np.ndarray:
        out = jax.lax.conv_transpose(
            jnp.asarray(values)[None, :, :, None],
            jnp.asarray(kernel)[:, :, None, None],
            (2, 2),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            transpose_kernel=transpose_kernel,
        )
        return np.asarray(out)[0, :, :, 0]

    down = np.asarray(slide(whole, kernel, stride=2))
    product, back = float((down * values).sum()), float((whole * whole).sum())
    return Worked(
        [
            step("2x2 values, a 3x3 filter", values, "", kernel),
            step("value times filter, stamped 2 cells apart; overlaps add up", whole),
            step("p = 1 cuts a row and a column off each side: 3x3", cut),
            step("output padding 1 leaves those at the end: 4x4", whole[1:, 1:]),
        ],
        {
            "stamps_difference": (
                largest_difference(whole, stamps),
                "between the layer and the stamps; must be 0",
            ),
            "cut_size": (float(len(cut)), "(n - 1) s + f - 2p; must be 3"),
            "output_padded_size": (float(len(whole[1:, 1:])), "with output padding 1; must be 4"),
            "lax_difference": (
                largest_difference(lax(False), whole),
                "lax.conv_transpose stamps the filter turned by 180 degrees; must be above 0",
            ),
            "lax_transposed_difference": (
                largest_difference(lax(True), whole),
                "with transpose_kernel=True; must be 0",
            ),
            "adjoint_difference": (
                abs(product - back),
                "<conv(y), x> = <y, its transpose(x)>; must be 0",
            ),
        },
        lambda: {
            "transposed": figures.grids(
                {"values": values, "filter": kernel, "stamped": whole, "p = 1": cut}
            )
        },
    )


def bottleneck(config: WorkedExamplesConfig) -> Worked:
    """Cuts a map from 16 to 16 channels, which has rank 6, down to fewer channels."""
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(16, 6)) @ rng.normal(size=(6, 16))
    left, values, right = np.linalg.svd(wanted)
    errors = {}
    for rank in range(1, 9):
        down = (left[:, :rank] * values[:rank])[None, None].astype(np.float32)  # 1x1, 16 -> rank
        up = right[:rank][None, None].astype(np.float32)  # 1x1, rank -> 16
        pixels = jnp.eye(16)[None, None]
        layers: list[Any] = [{"params": {"kernel": k}} for k in (down, up)]
        narrow = Conv(rank, 1, use_bias=False).apply(layers[0], pixels)
        out = np.asarray(Conv(16, 1, use_bias=False).apply(layers[1], narrow))[0, 0]
        errors[rank] = float(((out - wanted) ** 2).sum() / (wanted**2).sum())
    curve = (np.array(list(errors)), np.array(list(errors.values())))
    return Worked(
        [
            step(
                "a 1x1 to r channels, a 1x1 back to 16: the best of rank r, relative error",
                *(f"r={r}: {e:.4f}" for r, e in errors.items()),
            )
        ],
        {
            "error_rank_2": (errors[2], "too strong a cut harms; must be above 0.1"),
            "error_rank_4": (errors[4], "must be below that of rank 2"),
            "error_rank_6": (errors[6], "the map's own rank; must be below 1e-9"),
        },
        lambda: {
            "bottleneck": figures.curves(
                {"a map of rank 6": {"best fit": curve}}, ("channels of the bottleneck", "error")
            )
        },
    )
