"""Tiled predictions equal whole ones."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import drawn

from research.errors import UserError
from research.models import create
from research.models.tiling import predict_tiled, starts


def images(*shape):
    return jnp.array(np.random.default_rng(0).normal(size=shape), "f")


def variables_of(model, channels):
    image = jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)
    return drawn(jax.eval_shape(model.init, jax.random.key(0), image))


@pytest.mark.parametrize("length", range(1, 200, 7))
def test_tiles_cover_a_side_and_overlap(length):
    begin = starts(length, tile=40, overlap=20, multiple=1)
    assert begin[0] == 0 and begin[-1] + 40 >= length
    for a, b in itertools.pairwise(begin):
        assert 0 < b - a <= 20
    assert begin[-1] == max(length - 40, 0)


@pytest.mark.parametrize(
    ("name", "upsampling", "height", "width"),
    [
        ("unet_same", "transposed", 61, 133),
        ("unet_same", "transposed", 20, 90),
        ("unet_same", "transposed", 30, 30),
        ("unet_same", "bilinear", 96, 133),
        ("unet_same", "nearest", 96, 133),
        ("unet_lean", "transposed", 96, 133),
        ("unet_lean", "bilinear", 97, 133),
    ],
)
def test_padded_networks_tiled_equal_whole(name, upsampling, height, width):
    model = create(name, width=2, depth=2, num_classes=2, upsampling=upsampling)
    variables = variables_of(model, 3)
    scene = images(1, height, width, 3)
    network = jax.jit(lambda x: model.apply(variables, x))
    margin = model.margin + model.multiple - 1  # pixels of one cell of the lowest map go together
    tile = 2 * model.multiple * (margin // model.multiple + 2)
    tiled = predict_tiled(network, scene, tile, margin, model.multiple)
    whole = network(scene)
    assert tiled.shape == whole.shape
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
    if max(height, width) > tile:  # with less margin the seams show
        seams = predict_tiled(network, scene, tile, 0, model.multiple)
        assert np.abs(seams - whole).max() > 1e-2


@pytest.mark.parametrize(
    ("upsampling", "stem", "height", "width"),
    [
        ("transposed", 1, 61, 133),
        ("nearest", 1, 61, 133),
        ("bilinear", 1, 61, 133),
        ("bilinear", 2, 96, 133),
    ],
)
def test_the_overlap_tile_strategy_of_the_paper(upsampling, stem, height, width):
    """Valid convolutions: the image is mirrored once, and tiles are cut from it."""
    options = {"upsampling": upsampling, "stem": stem, "width": 2, "depth": 2, "num_classes": 2}
    model = create("unet", dropout=0.0, **options)
    variables = variables_of(model, 1)
    scene = images(1, height, width, 1)
    sides = [model.mirrored(n) for n in (height, width)]
    mirrored = jnp.pad(scene, ((0, 0), *sides, (0, 0)), mode="reflect")
    tile = 32 + sum(model.mirrored(32))
    trunk = jax.jit(lambda x: model.apply(variables, x, False, method="trunk"))
    tiled = predict_tiled(trunk, mirrored, tile, model.margin, model.multiple, model.lost)
    np.testing.assert_allclose(
        tiled[:, :height, :width], jax.jit(model.apply)(variables, scene), atol=1e-5
    )


def test_a_tile_that_is_too_small_is_said():
    with pytest.raises(UserError, match="--tile=32: tiles of this network are multiples of 16"):
        predict_tiled(lambda x: x, images(1, 100, 100, 1), 32, 16, 16)
    with pytest.raises(UserError, match="--tile=50"):
        predict_tiled(lambda x: x, images(1, 100, 100, 1), 50, 4, 16)
