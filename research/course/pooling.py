"""Pooling over windows, pyramids and regions; a dense layer as a convolution."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research.course.config import WorkedExamplesConfig
from research.course.worked import Worked, largest_difference, step
from research.figures import course as figures
from research.models.windows import WindowDense
from research.nn.convolution import Conv, output_size
from research.nn.initialisers import INITIALISERS
from research.nn.pooling import adaptive_max_pool, average_pool, max_pool, spatial_pyramid_pool
from research.nn.region_pooling import roi_align, roi_pool

M5 = np.array(
    [[1, 3, 2, 1, 3], [2, 9, 1, 1, 5], [3, 2, 3, 2, 3], [8, 3, 5, 1, 0], [5, 6, 1, 2, 9]],
    np.float32,
)
P4 = np.array([[1, 3, 2, 1], [2, 9, 1, 1], [1, 4, 2, 3], [5, 6, 1, 2]], np.float32)


def _pool(pool: Any, image: np.ndarray, size: int, stride: int) -> np.ndarray:
    maps = jnp.asarray(image)[None, ..., None] if image.ndim == 2 else jnp.asarray(image)[None]
    pooled = np.asarray(pool(maps, size, stride))[0]
    return pooled[..., 0] if image.ndim == 2 else pooled


def pooling(config: WorkedExamplesConfig) -> Worked:
    """Pools the lecture's 5x5 and 4x4 numbers, and a volume channel by channel."""
    single, double = _pool(max_pool, M5, 3, 1), _pool(max_pool, M5, 3, 2)
    average, largest = _pool(average_pool, P4, 2, 2), _pool(max_pool, P4, 2, 2)
    volume = np.stack([M5, M5.T], axis=-1)
    both = _pool(max_pool, volume, 3, 1)
    layer = nn.Sequential([lambda x: max_pool(x, 2, 2)])
    learned = layer.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    return Worked(
        [
            step("5x5", M5),
            step("max over 3x3, stride 1, and stride 2", single, "", double),
            step("4x4", P4),
            step("average over 2x2, stride 2, and max", average, "", largest),
            step("5x5x2 to 3x3x2: the second channel alone", both[..., 1]),
        ],
        {
            "max_first": (float(single[0, 0]), "must be 9"),
            "max_last_row": (float(single[2, 1]), "third row, second; must be 6"),
            "max_sum": (float(single.sum()), "of [9 9 5; 9 9 5; 8 6 9]; must be 69"),
            "max_stride_two": (float(double.sum()), "of [9 5; 8 9]; must be 31"),
            "average_first": (float(average[0, 0]), "must be 3.75"),
            "average_second": (float(average[0, 1]), "must be 1.25"),
            "average_sum": (float(average.sum()), "of [3.75 1.25; 4 2]; must be 11"),
            "max_of_the_same": (float(largest.sum()), "of [9 2; 6 3]; must be 20"),
            "channel_difference": (
                max(
                    largest_difference(both[..., c], _pool(max_pool, volume[..., c], 3, 1))
                    for c in (0, 1)
                ),
                "between a volume's channels and each alone; must be 0",
            ),
            "pooled_rows": (float(both.shape[0]), "of 5x5x2; must be 3"),
            "pooled_channels": (float(both.shape[2]), "must be 2"),
            "pooling_parameters": (float(len(jax.tree.leaves(learned))), "must be 0"),
            "halved": (output_size(28, 2, 2) / 28, "f = 2, s = 2; must be 0.5"),
        },
        lambda: {
            "pooling": figures.grids(
                {"5x5": M5, "max 3x3": single, "4x4": P4, "average 2x2": average}
            )
        },
    )


def pyramid(config: WorkedExamplesConfig) -> Worked:
    """Pools maps of two sizes to one length, over 1, 4 and 16 bins."""
    rng = np.random.default_rng(0)
    maps = {n: rng.integers(0, 99, (1, n, n + 3, 2)).astype(np.float32) for n in (10, 13)}
    lengths = {n: spatial_pyramid_pool(jnp.asarray(m)).shape[1] for n, m in maps.items()}
    ten = maps[10][0, :, :10]
    whole = jnp.array([[0.0, 0.0, 9.0, 9.0]])  # cells 0 to 9
    region = np.asarray(roi_pool(jnp.asarray(ten), whole, 4))[0]
    level = np.asarray(adaptive_max_pool(jnp.asarray(ten)[None], 4, 4))[0]
    # The windows of the SPP paper's text: size ceil(a / n), stride floor(a / n).
    windows = np.asarray(max_pool(jnp.asarray(ten)[None], 3, 2))[0]
    return Worked(
        [
            step(
                "maps of 10x13 and 13x16, two channels", *(f"{n}: {k}" for n, k in lengths.items())
            ),
            step("one level of 4x4 bins on 10x10, first channel", level[..., 0]),
            step("RoI pooling of the whole map", region[..., 0]),
            step("windows of 3 at stride 2 instead leave the last row out", windows[..., 0]),
        ],
        {
            "length_10": (lengths[10] / 2, "bins a channel, 1 + 4 + 16; must be 21"),
            "length_13": (lengths[13] / 2, "for the other size; must be 21"),
            "roi_difference": (
                largest_difference(region, level),
                "between RoI pooling and one level of the pyramid; must be 0",
            ),
            "window_difference": (
                largest_difference(windows, level),
                "between windows of ceil(a/n) and bins, a = 10, n = 4; must be above 0",
            ),
        },
        lambda: {
            "pyramid": figures.grids(
                {"10x10": ten[..., 0], "4x4 bins": level[..., 0]}
                | {
                    f"{n}x{n}": np.asarray(adaptive_max_pool(jnp.asarray(ten)[None], n, n))[
                        0, ..., 0
                    ]
                    for n in (2, 1)
                }
            )
        },
    )


def roi_pooling(config: WorkedExamplesConfig) -> Worked:
    """Pools regions of two sizes to 2x2, by RoI pooling and by RoI align."""
    ramp = np.add.outer(10.0 * np.arange(8), np.arange(8)).astype(np.float32)[..., None]
    boxes = jnp.array([[0.0, 0.0, 3.0, 3.0], [1.0, 2.0, 7.0, 5.0], [1.4, 2.0, 7.4, 5.0]])
    pooled, aligned = (np.asarray(f(jnp.asarray(ramp), boxes, 2)) for f in (roi_pool, roi_align))
    return Worked(
        [
            step("a map, 8x8: 10 times the row plus the column", ramp[..., 0]),
            step(
                "RoI pooling of (0, 0, 3, 3) and (1, 2, 7, 5)",
                pooled[0, ..., 0],
                "",
                pooled[1, ..., 0],
            ),
            step("the second, 0.4 to the right: rounded away", pooled[2, ..., 0]),
            step("RoI align of the two: 0.4 more", aligned[1, ..., 0], "", aligned[2, ..., 0]),
        ],
        {
            "region_rows": (float(pooled.shape[1]), "of every region; must be 2"),
            "quantised_shift": (
                largest_difference(pooled[1], pooled[2]),
                "of RoI pooling by 0.4 cells; must be 0",
            ),
            "aligned_shift": (
                float((aligned[2] - aligned[1]).mean()),
                "of RoI align by 0.4 cells; must be 0.4",
            ),
        },
        lambda: {
            "roi_pooling": figures.grids(
                {
                    "map": ramp[..., 0],
                    "RoI pooling": pooled[1, ..., 0],
                    "RoI align": aligned[1, ..., 0],
                }
            )
        },
    )


def dense(config: WorkedExamplesConfig) -> Worked:
    """Runs a small classifier on crops, and as convolutions on the whole image."""
    first = Conv(4, 5, padding="VALID")
    hidden = WindowDense(400, 5, INITIALISERS["he"])
    last = WindowDense(4, 1, INITIALISERS["he"])
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=(1, 28, 28, 3)), jnp.float32)
    shapes = ((5, 5, 3, 4), (5 * 5 * 4, 400), (400, 4))
    weights: list[Any] = [
        {
            "params": {
                "kernel": jnp.asarray(rng.normal(size=s) / np.prod(s[:-1]) ** 0.5, jnp.float32),
                "bias": jnp.zeros(s[-1]),
            }
        }
        for s in shapes
    ]

    @partial(jax.jit, static_argnums=1)
    def classify(x: Any, convolutional: bool) -> Any:
        maps: Any = first.apply(weights[0], x)
        x = max_pool(nn.relu(maps), 2, 2)
        units: Any = hidden.apply(weights[1], x, convolutional)
        return last.apply(weights[2], nn.relu(units), convolutional)

    whole = {n: np.asarray(classify(image[:, :n, :n], True))[0] for n in (14, 16, 28)}
    crops = jnp.concatenate(
        [image[:, i : i + 14, j : j + 14] for i in range(0, 16, 2) for j in range(0, 16, 2)]
    )
    by_crop = np.asarray(classify(crops, False)).reshape(8, 8, 4)
    flat = weights[1]["params"]["kernel"].shape
    positions = {"whole": 24 * 24, "crops": 64 * 10 * 10}
    return Worked(
        [
            step(
                "14x14 -> 5x5 filters 10x10 -> 2x2 pooling 5x5 -> dense 400 -> dense 4",
                f"the first dense layer's kernel {flat} is a 5x5 filter: 5x5xn to 1x1x400",
            ),
            step(
                "the same layers over larger images",
                *(f"{n}x{n}: {out.shape[0]}x{out.shape[1]} windows" for n, out in whole.items()),
            ),
            step("a class's scores on 28x28, all windows at once", whole[28][..., 0]),
            step(
                "places of the first layer",
                f"{positions['whole']} at once, {positions['crops']} crop by crop",
            ),
        ],
        {
            "windows_14": (float(len(whole[14])), "a side; must be 1"),
            "windows_16": (float(len(whole[16])), "a side; must be 2"),
            "windows_28": (float(len(whole[28])), "a side; must be 8"),
            "crop_difference": (
                largest_difference(whole[28], by_crop),
                "between all windows at once and crop by crop; must be below 1e-4",
            ),
            "dense_units": (float(flat[1]), "of the layer on 5x5; must be 400"),
            "places_at_once": (float(positions["whole"]), "must be 576"),
            "places_by_crop": (float(positions["crops"]), "must be 6,400"),
        },
        lambda: {
            "dense_as_convolution": figures.grids(
                {"all windows at once": whole[28][..., 0], "crop by crop": by_crop[..., 0]},
                side=3.4,
            )
        },
    )
