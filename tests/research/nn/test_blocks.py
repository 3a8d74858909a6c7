"""Blocks against the equations of their papers, put together by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.nn.convolution import convolution
from research.nn.initialisers import INITIALISERS
from research.nn.mobile import DepthwiseSeparable, InvertedResidual, SqueezeExcitation
from research.nn.normalisation import batch_norm
from research.nn.residual import ResidualBlock

HE = INITIALISERS["he"]
NORM = batch_norm(False, None, epsilon=0.0)  # at its initial state the identity
MAPS = jnp.array(np.random.default_rng(0).normal(size=(2, 6, 6, 8)), jnp.float32)


def relu(x):
    return jnp.maximum(x, 0)


def run(block, *args):
    output, variables = jax.jit(lambda x: block.init_with_output(jax.random.key(0), x, *args))(MAPS)
    return output, variables["params"]


def test_an_identity_shortcut_adds_the_input():
    y, p = run(ResidualBlock(8, relu, HE, NORM))
    f = convolution(MAPS, p["conv1"]["kernel"], padding=1)
    f = convolution(relu(f), p["conv2"]["kernel"], padding=1)
    np.testing.assert_allclose(y, relu(f + MAPS), rtol=1e-4, atol=2e-4)


def test_a_projection_shortcut_where_the_shape_changes():
    y, p = run(ResidualBlock(12, relu, HE, NORM, stride=2))
    f = convolution(MAPS, p["conv1"]["kernel"], stride=2, padding=1)
    f = convolution(relu(f), p["conv2"]["kernel"], padding=1)
    shortcut = convolution(MAPS, p["downsample_0"]["kernel"], stride=2)
    assert y.shape == (2, 3, 3, 12)
    np.testing.assert_allclose(y, relu(f + shortcut), rtol=1e-4, atol=2e-4)


def test_a_padded_shortcut_has_no_parameters_and_new_channels_are_zero():
    y, p = run(ResidualBlock(12, relu, HE, NORM, stride=2, shortcut="padding"))
    f = convolution(MAPS, p["conv1"]["kernel"], stride=2, padding=1)
    f = convolution(relu(f), p["conv2"]["kernel"], padding=1)
    shortcut = jnp.concatenate([MAPS[:, ::2, ::2], jnp.zeros((2, 3, 3, 4))], axis=-1)
    np.testing.assert_allclose(y, relu(f + shortcut), rtol=1e-4, atol=2e-4)
    assert not any("downsample" in name for name in p)


def test_a_bottleneck_is_narrow_inside():
    y, p = run(ResidualBlock(2, relu, HE, NORM, bottleneck=True))
    f = relu(convolution(MAPS, p["conv1"]["kernel"]))
    f = relu(convolution(f, p["conv2"]["kernel"], padding=1))
    f = convolution(f, p["conv3"]["kernel"])
    assert f.shape[-1] == 8 and p["conv2"]["kernel"].shape == (3, 3, 2, 2)
    np.testing.assert_allclose(y, relu(f + MAPS), rtol=1e-4, atol=2e-4)


def test_without_a_shortcut_a_block_of_zeros_gives_zeros():
    block = ResidualBlock(8, relu, INITIALISERS["zeros"], NORM, shortcut=False)
    assert not run(block)[0].any()


def test_a_separable_convolution_filters_each_channel_and_then_mixes():
    y, p = run(DepthwiseSeparable(5, 2, relu, HE), False)
    each = [
        convolution(MAPS[..., i : i + 1], p["conv_dw"]["kernel"][..., i : i + 1], 2, 1)
        for i in range(8)
    ]
    f = relu(jnp.concatenate(each, -1)) @ p["conv_pw"]["kernel"][0, 0]
    np.testing.assert_allclose(y, relu(f), rtol=1e-4, atol=2e-4)


def test_squeeze_and_excitation_scales_channels():
    y, p = run(SqueezeExcitation(3))
    means = MAPS.mean((1, 2))
    squeezed = relu(means @ p["fc1"]["kernel"][0, 0] + p["fc1"]["bias"])
    gate = jax.nn.sigmoid(squeezed @ p["fc2"]["kernel"][0, 0] + p["fc2"]["bias"])
    np.testing.assert_allclose(y, MAPS * gate[:, None, None], rtol=1e-4, atol=1e-5)


def test_an_inverted_residual_expands_filters_and_projects_linearly():
    y, p = run(InvertedResidual(24, 8, activation=relu), False)
    f = relu(convolution(MAPS, p["block_0_0"]["kernel"]))
    f = relu(convolution(f, p["block_1_0"]["kernel"], padding=1, groups=24))
    f = convolution(f, p["block_2_0"]["kernel"])
    np.testing.assert_allclose(y, f + MAPS, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"expanded": 8, "names": "conv"}, {"conv_0_0", "conv_0_1", "conv_1", "conv_2"}),
        (
            {"expanded": 16, "squeezed": 4},
            {f"block_{i}_{j}" for i in (0, 1, 3) for j in (0, 1)} | {"block_2"},
        ),
    ],
)
def test_an_inverted_residual_names_its_layers_as_torchvision_does(options, names):
    _, p = run(InvertedResidual(channels=8, **options), False)
    assert set(p) == names


def test_dropping_the_path_leaves_the_shortcut():
    block = InvertedResidual(24, 8, drop_path=0.5)
    variables = jax.jit(lambda x: block.init(jax.random.key(0), x, False))(MAPS)
    maps = np.concatenate([MAPS] * 8)
    rngs, mutable = {"dropout": jax.random.key(1)}, ["batch_stats"]

    def apply(block, maps):
        return block.apply(variables, maps, True, rngs=rngs, mutable=mutable)[0]

    y = np.asarray(jax.jit(apply, static_argnums=0)(block, maps))
    whole = np.asarray(jax.jit(apply, static_argnums=0)(block.clone(drop_path=0.0), maps))
    dropped = (y == maps).all((1, 2, 3))
    assert 0 < dropped.sum() < len(maps)
    np.testing.assert_allclose(
        y[~dropped] - maps[~dropped], 2 * (whole - maps)[~dropped], rtol=1e-3, atol=1e-4
    )
