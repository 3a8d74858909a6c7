"""Attributions are captum's on the same small network.

tests/fixtures/generate_captum_attributions.py says where the expected ones come from.
"""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.nn.convolution import Conv
from research.nn.flatten import flatten
from research.nn.pooling import max_pool
from research.understanding import gradients
from research.understanding.grad_cam import grad_cam
from research.understanding.network import ImageNetwork, layers_of
from research.understanding.occlusion import occlude
from research.understanding.target import Target

FILE = Path(__file__).parents[2] / "fixtures" / "captum_attributions.npz"
TARGETS, STEPS, WINDOW, STRIDE, BASELINE = (3, 1), 50, (4, 3), (3, 2), 0.25


class Small(nn.Module):
    """The network of the generator. One activation argument serves both uses, as a function."""

    activation: object = nn.relu

    @nn.compact
    def __call__(self, images):
        x = self.activation(Conv(6, 3, name="conv1")(images))
        x = max_pool(x, 2, 2)
        x = self.activation(Conv(8, 3, 2, name="conv2")(x))
        return nn.Dense(5, name="fc")(flatten(x))


@pytest.fixture(scope="module")
def expected():
    with np.load(FILE) as file:
        arrays = {name: file[name] for name in file}
    # Channels last, as here.
    return {
        k: np.moveaxis(v, 1, -1) if v.ndim == 4 and "net." not in k else v
        for k, v in arrays.items()
    }


@pytest.fixture(scope="module")
def network(expected):
    def of(name):
        kernel = expected[f"net.{name}.weight"]
        kernel = np.moveaxis(kernel, (0, 1), (-1, -2))
        return {
            "kernel": jnp.asarray(kernel, jnp.float32),
            "bias": jnp.asarray(expected[f"net.{name}.bias"], jnp.float32),
        }

    variables = {"params": {name: of(name) for name in ("conv1", "conv2", "fc")}}
    return ImageNetwork(Small().apply, variables, tuple("abcde"), (12, 12, 3))


@pytest.fixture(scope="module")
def images(expected):
    return jnp.asarray(expected["images"], jnp.float32)


def score(network, rule=None):
    """Each image's own class."""

    def of(images):
        logits = layers_of(network, images, rule=rule)["fc"]
        return logits[jnp.arange(len(images)), jnp.array(TARGETS)[: len(images)]]

    return of


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_network_is_the_generators(network, images, expected):
    close(network.outputs(images), expected["logits"])


def test_saliency(network, images, expected):
    found = jax.jit(lambda x: gradients.saliency(score(network), x))(images)
    close(found, expected["saliency"].max(-1))


def test_gradient_times_input(network, images, expected):
    found = jax.jit(lambda x: gradients.gradient_times_input(score(network), x))(images)
    close(found, expected["gradient_times_input"])


def test_integrated_gradients_and_their_completeness(network, images, expected):
    f = score(network)
    found = jax.jit(lambda x: gradients.integrated_gradients(f, x, BASELINE, STEPS))(images)
    close(found, expected["integrated_gradients"])
    found = jax.jit(lambda x: gradients.integrated_gradients(f, x, BASELINE, 300))(images)
    assert gradients.completeness_gap(f, images, found, BASELINE).max() < 0.01
    # What does not sum to the difference is found out.
    assert gradients.completeness_gap(f, images, 1.05 * found, BASELINE).min() > 0.01


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
def test_relu_rules_change_every_use_of_a_functional_activation(network, images, expected, rule):
    found = jax.jit(lambda x: gradients.gradient(score(network, rule), x))(images)
    close(found, expected[rule])
    plain = gradients.gradient(score(network, "plain"), images)
    np.testing.assert_allclose(plain, gradients.gradient(score(network), images), atol=1e-6)
    assert jnp.abs(found - plain).max() > 0.01


@pytest.mark.parametrize("signed", [True, False])
def test_grad_cam(network, images, expected, signed):
    name = "grad_cam_signed" if signed else "grad_cam"
    for i, unit in enumerate(TARGETS):
        found = grad_cam(network, Target("fc", unit), "conv2", images[i : i + 1], signed)
        close(found[0], expected[name][i, ..., 0])


def test_occlusion(network, images, expected):
    for i, unit in enumerate(TARGETS):
        found = occlude(
            lambda x, unit=unit: network.outputs(x)[:, unit],
            images[i : i + 1],
            WINDOW,
            STRIDE,
            BASELINE,
            chunk=5,
        )
        close(found.drop[0], expected["occlusion"][i, ..., 0])
