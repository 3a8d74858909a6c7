"""Random changes of training images that leave the class alone; on the device, jitted, vmapped.

Images are float32 in 0..1, RGB where they have three channels. Every row of a batch has a key of
its own (`example_keys`), made of the step's key, the example's index, and how many copies of the
example stand before it. So its changes depend neither on the batch's size nor on the number of
devices, and copies are changed differently. Each kind of change has random draws of its own:
turning one on leaves the others as they were.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Bool, Float, Int, Integer, Key, Num, Shaped

from research.data.config import Augmentation
from research.data.images import warps
from research.errors import UserError
from research.experiment import gather
from research.random import stream

Image = Float[Array, "height width channel"]
Components = Float[Array, "3 3"] | Float[np.ndarray, "3 3"]


def example_keys(key: Key[Array, ""], *numbers: Int[Any, " batch"]) -> Key[Array, " batch"]:
    """Returns a key for each example, from `key` and the example's numbers.

    In training these are its batch's "index" and "occurrence": see `data.sources.source.Source`.
    """

    def one(*own: Int[Array, ""]) -> Key[Array, ""]:
        return functools.reduce(jax.random.fold_in, own, key)

    return jax.vmap(one)(*numbers)


def noise_like(
    keys: Key[Array, " batch"], images: Num[Any, "batch height width channel"]
) -> Float[Array, "batch height width channel"]:
    """Draws normal noise of deviation 1 for each image, by its own key."""
    return jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)


def augment(
    options: Augmentation,
    keys: Key[Array, " batch"],
    images: Float[Array, "batch height width channel"],
    components: Components | None = None,
) -> Float[Array, "batch height width channel"]:
    """Returns changed images, in 0..1 and of the same size; all but mixup, which mixes examples.

    Args:
      keys: from `example_keys`.
      components: from `colour_components`; needed by pca_colour alone.

    Raises:
      UserError: for a change of colour where images have no three channels.
    """
    stages: dict[str, tuple[float, Callable[..., Image]]] = {
        "brightness": (options.brightness, brightness),
        "contrast": (options.contrast, contrast),
        "saturation": (options.saturation, saturation),
        "hue": (options.hue, hue),
        "pca_colour": (options.pca_colour, functools.partial(pca_colour, components=components)),
        "cutout": (options.cutout, cutout),
    }
    active = {name: stage for name, stage in stages.items() if stage[0]}
    for name in ("saturation", "hue", "pca_colour"):
        if name in active and images.shape[-1] != 3:
            raise UserError(f"{name} needs RGB images; these have {images.shape[-1]} channel(s).")

    moved = moves(options)

    def one(key: Key[Array, ""], image: Image) -> Image:
        height, width, _ = image.shape
        if moved:
            image = warps.warp_image(image, *draw_warp(options, key, height, width))
        if moved and active:
            # Else XLA fuses the resampling into each use of its result, and does it several times.
            image = jax.lax.optimization_barrier(image)
        if active:
            draw = draws(key)
        for name, (strength, stage) in active.items():
            image = stage(draw[name], image, strength)
        return image

    return jax.vmap(one)(keys, images)


def augment_batch(
    options: Augmentation,
    key: Key[Array, ""],
    batch: Mapping[str, Any],
    components: Components | None = None,
) -> tuple[Key[Array, " batch"], Float[Array, "batch height width channel"]]:
    """Returns the random key of each example, and its "image" augmented, 0..255 both ways.

    Args:
      key: of the step.
      batch: with "index" and "occurrence", which the keys depend on.
    """
    keys = example_keys(key, batch["index"], batch["occurrence"])
    return keys, augment(options, keys, batch["image"] / 255.0, components) * 255.0


def draws(key: Key[Array, ""]) -> dict[str, Float[Array, " _"]]:
    """Returns one example's numbers for each kind, uniform in (-1, 1).

    All of them in one call, whatever is on: each call of JAX's generator on CPU takes half a second
    to compile.
    """
    counts = {"affine": 8, "brightness": 1, "contrast": 1, "saturation": 1, "hue": 1}
    counts |= {"pca_colour": 3, "cutout": 2, "mixup": 1, "mosaic": 4, "flip": 1}
    ends = np.cumsum(list(counts.values()))
    above_minus_1 = np.nextafter(np.float32(-1), np.float32(0))
    values = jax.random.uniform(key, (ends[-1],), minval=above_minus_1, maxval=1.0)
    return dict(zip(counts, jnp.split(values, ends[:-1]), strict=True))


def draw_warp(
    options: Augmentation, key: Key[Array, ""], height: int, width: int
) -> tuple[Float[Array, "2 3"], Float[Array, "{height} {width} 2"] | None]:
    """Draws one example's geometry: an affine matrix, and an elastic field if it has one.

    What else belongs to the image (mask, boxes) is moved by the same pair; see `warps`.
    """
    o, drawn = options, draws(key)
    draw, upended = drawn["affine"], drawn["flip"]
    # A crop of the padded image is a shift by whole pixels, each as likely.
    crop = jnp.clip(jnp.round(draw[6:] * (o.crop_padding + 0.5)), -o.crop_padding, o.crop_padding)
    matrix = warps.affine(
        height,
        width,
        flip=(
            jnp.where(draw[0] < 0, -1.0, 1.0) if o.mirror else 1.0,
            jnp.where(upended[0] < 0, -1.0, 1.0) if o.flip else 1.0,
        ),
        rotation=draw[1] * o.rotation,
        shear=draw[2] * o.shear,
        scale=1 + draw[3] * o.scale,
        shift=(draw[4] * o.shift * width + crop[0], draw[5] * o.shift * height + crop[1]),
    )
    if not o.elastic_alpha:
        return matrix, None
    key = stream(key, "elastic")
    return matrix, warps.elastic_field(key, height, width, o.elastic_alpha, o.elastic_sigma)


def moves(options: Augmentation) -> bool:
    """Returns whether pixels are moved, and not only coloured."""
    o = options
    geometry = (o.mirror, o.flip, o.crop_padding, o.rotation, o.shear, o.scale, o.shift)
    return any((*geometry, o.elastic_alpha))


def move_masks(
    options: Augmentation,
    keys: Key[Array, " batch"],
    masks: Integer[Array, "batch height width"],
    outside: int,
) -> Integer[Array, "batch height width"]:
    """Moves masks as `augment` moves their images under the same keys, by the nearest pixel.

    Args:
      outside: the class number of pixels that come from outside the image.
    """
    if not moves(options):
        return masks

    def one(key: Key[Array, ""], mask: Integer[Array, "height width"]) -> Array:
        matrix, field = draw_warp(options, key, *mask.shape)
        return warps.warp_mask(mask, matrix, field, outside)

    return jax.vmap(one)(keys, masks)


def move_points(
    options: Augmentation,
    keys: Key[Array, " batch"],
    points: Float[Array, "batch n 2"],
    height: int,
    width: int,
) -> Float[Array, "batch n 2"]:
    """Moves points (x, y) as `augment` moves images under the same keys, even out of the image."""

    def one(key: Key[Array, ""], points: Float[Array, "n 2"]) -> Array:
        return warps.warp_points(points, draw_warp(options, key, height, width)[0])

    return jax.vmap(one)(keys, points)


def move_maps(
    options: Augmentation,
    keys: Key[Array, " batch"],
    maps: Float[Array, "batch height width"],
) -> Float[Array, "batch height width"]:
    """Moves maps of numbers, such as weights of pixels, likewise; 0 from outside the image."""
    if not moves(options):
        return maps

    def one(key: Key[Array, ""], values: Float[Array, "height width"]) -> Array:
        return warps.warp_image(values[..., None], *draw_warp(options, key, *values.shape))[..., 0]

    return jax.vmap(one)(keys, maps)


def random_crops(
    keys: Key[Array, " batch"], side: int, *arrays: Shaped[Array, "batch height width ..."]
) -> list[Shaped[Array, "batch rows columns ..."]]:
    """Cuts the same random square out of each array of an example, each place equally likely.

    Args:
      side: pixels; a smaller image is taken whole.
    """
    height, width = arrays[0].shape[1:3]
    rows, columns = min(side, height), min(side, width)

    def one(key: Key[Array, ""], *values: Array) -> list[Array]:
        draw = jax.random.uniform(stream(key, "crop"), (2,))
        room = jnp.array([height - rows + 1, width - columns + 1])
        top, left = jnp.minimum(jnp.floor(draw * room).astype(jnp.int32), room - 1)
        return [
            jax.lax.dynamic_slice_in_dim(
                jax.lax.dynamic_slice_in_dim(v, top, rows, 0), left, columns, 1
            )
            for v in values
        ]

    return jax.vmap(one)(keys, *arrays)


def quarter_turn(
    turns: Int[Array, " batch"], images: Float[Array, "batch side side channel"]
) -> Float[Array, "batch side side channel"]:
    """Turns each square image anticlockwise by as many times 90 degrees, without resampling."""
    turned = jnp.stack([jnp.rot90(images, k, axes=(1, 2)) for k in range(4)])
    return turned[turns, jnp.arange(len(images))]


def copies_of(
    key: Key[Array, ""], classes: Int[Array, " batch"], count: int
) -> Int[Array, " batch"]:
    """Draws which of `count` copies of its class each image shows: the same for a whole class."""
    keys = example_keys(key, classes)
    return jax.vmap(lambda own: jax.random.randint(own, (), 0, count))(keys)


def turned_copies(
    copies: Int[Array, " batch"], images: Float[Array, "batch height width channel"], turns: int
) -> Float[Array, "batch height width channel"]:
    """Turns images by copies % turns quarters; those from number `turns` on are mirrored first.

    Args:
      turns: 4 for square images, or 1 for none.
    """
    mirrored = (copies >= turns)[:, None, None, None]
    images = jnp.where(mirrored, images[:, :, ::-1], images)
    return images if turns == 1 else quarter_turn(copies % turns, images)


def brightness(draw: Float[Array, "1"], image: Image, strength: float) -> Image:
    """Adds one number in ±strength to all values."""
    return jnp.clip(dm_pix.adjust_brightness(image, strength * draw), 0.0, 1.0)


def contrast(draw: Float[Array, "1"], image: Image, strength: float) -> Image:
    """Multiplies each value's distance from its channel's mean by one factor in 1 ± strength."""
    return jnp.clip(dm_pix.adjust_contrast(image, 1 + strength * draw), 0.0, 1.0)


def saturation(draw: Float[Array, "1"], image: Image, strength: float) -> Image:
    """Multiplies the saturation (of HSV) by one factor in 1 ± strength, as far as it goes."""
    value = image.max(-1, keepdims=True)
    chroma = value - image.min(-1, keepdims=True)
    factor = jnp.minimum(1 + strength * draw, value / jnp.where(chroma > 0, chroma, 1.0))
    return value - (value - image) * jnp.where(chroma > 0, factor, 1.0)


def hue(draw: Float[Array, "1"], image: Image, strength: float) -> Image:
    """Turns the hue (of HSV) by one part in ±strength of the full circle.

    dm_pix tests which channel *equals* the maximum; compiled, the two may be rounded differently,
    and the colour is wrong. Tests of which channel is larger are right near a tie, either way.
    """
    red, green, blue = jnp.moveaxis(image, -1, 0)
    value = image.max(-1)
    chroma = value - image.min(-1)
    safe = jnp.where(chroma > 0, chroma, 1.0)
    sixths = jnp.where(
        (red >= green) & (red >= blue),
        (green - blue) / safe,
        jnp.where(green >= blue, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    share = chroma / jnp.where(value > 0, value, 1.0)
    return dm_pix.hsv_to_rgb(jnp.stack([sixths / 6 + strength * draw, share, value], axis=-1))


def pca_colour(
    draw: Float[Array, "3"],
    image: Image,
    strength: float,
    components: Components | None,
) -> Image:
    """Adds one colour, Σ aᵢ λᵢ pᵢ, aᵢ ~ N(0, strength²): Krizhevsky et al. 2012, section 4.1."""
    if components is None:
        raise ValueError("pca_colour needs the training split's colour_components")
    a = strength * math.sqrt(2) * jax.scipy.special.erfinv(draw)
    return jnp.clip(image + (components * a).sum(1), 0.0, 1.0)


def colour_components(images: Float[np.ndarray, "n height width 3"]) -> Float[np.ndarray, "3 3"]:
    """Returns pᵢ λᵢ as columns: principal axes of RGB values in 0..1 times their variances.

    Args:
      images: of the training split, all or a fair sample, float in 0..1.
    """
    covariance = np.cov(images.reshape(-1, 3).astype(np.float64), rowvar=False)
    variances, axes = np.linalg.eigh(covariance)
    return (axes * variances).astype(np.float32)


def cutout(draw: Float[Array, "2"], image: Image, strength: float) -> Image:
    """Replaces a square by the image's mean colour: DeVries & Taylor 2017.

    Its centre is any pixel, so it may stick out; its side is `strength` of the shorter side, to
    whole pixels, one at least. (The paper's zeros, after normalisation, are the training set's
    mean.)
    """
    height, width, _ = image.shape
    side = max(round(strength * min(height, width)), 1)
    first = jnp.floor((draw + 1) / 2 * jnp.array([height, width])) - side // 2
    rows, columns = (
        (start <= jnp.arange(n)) & (jnp.arange(n) < start + side)
        for start, n in zip(first, (height, width), strict=True)
    )
    hole = (rows[:, None] & columns)[..., None]
    return jnp.where(hole, image.mean((0, 1)), image)


def mixup(
    alpha: float,
    keys: Key[Array, " batch"],
    images: Float[Array, "batch height width channel"],
    targets: Float[Array, "batch classes"],
    mask: Bool[Array, " batch"],
    axis: str | None = None,
) -> tuple[Float[Array, "batch height width channel"], Float[Array, "batch classes"]]:
    """Mixes each example with the next one: Zhang et al. 2018, equation 1.

        x = λ xᵢ + (1 - λ) xⱼ,   y = λ yᵢ + (1 - λ) yⱼ,   λ ~ Beta(α, α) from i's key

    j is the next row of the global batch (after the last, the first) that is no padding, so the
    result does not depend on how the batch is split.

    Args:
      alpha: 0.2 to 0.4 in the paper; 0 leaves everything as it is.
      targets: one-hot or soft labels; each row's sum is kept.
      mask: False marks padding, which is never mixed in.
      axis: the pmap axis the batch is split over; None where the arrays are the global batch.
    """
    if not alpha:
        return images, targets
    # The inverse of the Beta's distribution function, from a table: JAX's own sampler takes three
    # seconds to compile. The ends, where small alphas have their mass, are exact.
    table = scipy.special.betaincinv(alpha, alpha, np.linspace(0, 1, 4097))
    place = (jax.vmap(lambda key: draws(key)["mixup"][0])(keys) + 1) / 2 * 4096
    weight = jax.scipy.ndimage.map_coordinates(jnp.float32(table), [place], order=1)
    first = 0 if axis is None else jax.lax.axis_index(axis) * len(mask)
    partner = next_valid(gather(mask, axis))[first + jnp.arange(len(mask))]

    def mix(x: Array) -> Array:
        w = weight.reshape(-1, *[1] * (x.ndim - 1))
        return w * x + (1 - w) * gather(x, axis)[partner]

    return mix(images), mix(targets)


def next_valid(mask: Bool[Array, " n"]) -> Int[Array, " n"]:
    """Returns the position of the next True after each position, cyclically; its own if none."""
    n = len(mask)
    positions = jnp.arange(2 * n)
    candidates = jnp.where(jnp.tile(mask, 2), positions, 2 * n)
    following = jax.lax.cummin(candidates, reverse=True)[1 : n + 1]
    return jnp.where(mask.any(), following, positions[:n]) % n
