"""Activations and initialisers against their definitions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.nn.activations import ACTIVATIONS
from research.nn.initialisers import INITIALISERS

DEFINITIONS = {
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "scaled_tanh": lambda x: 1.7159 * math.tanh(2 * x / 3),
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * math.expm1(x)),
    "gelu": lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "hard_sigmoid": lambda x: min(max(x + 3, 0.0), 6.0) / 6,
    "hard_swish": lambda x: x * min(max(x + 3, 0.0), 6.0) / 6,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_its_definition(name):
    x = np.linspace(-8, 8, 41)
    expected = [DEFINITIONS[name](float(v)) for v in x]
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.array(x)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "deviation"),
    [
        ("zeros", 0.0),
        ("normal", 0.01),
        ("lecun", math.sqrt(1 / (9 * 32))),
        ("xavier", math.sqrt(2 / (9 * (32 + 64)))),
        ("he", math.sqrt(2 / (9 * 32))),
    ],
)
def test_an_initialiser_has_its_standard_deviation(name, deviation):
    kernel = INITIALISERS[name](jax.random.key(0), (3, 3, 32, 64), jnp.float32)
    assert abs(float(kernel.std()) - deviation) <= 0.02 * deviation  # 4 sigma of 18,432 draws
    assert abs(float(kernel.mean())) <= 4 * deviation / math.sqrt(kernel.size)


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("normal", jax.nn.initializers.normal(0.01)),
        ("lecun", jax.nn.initializers.lecun_normal()),
        ("xavier", jax.nn.initializers.xavier_normal()),
        ("he", jax.nn.initializers.he_normal()),
    ],
)
def test_an_initialiser_draws_what_jax_s_own_draws(name, peer):
    arguments = (jax.random.key(0), (3, 3, 4, 8), jnp.float32)
    np.testing.assert_allclose(INITIALISERS[name](*arguments), peer(*arguments), rtol=1e-5)


def test_an_orthogonal_kernel_keeps_lengths():
    kernel = INITIALISERS["orthogonal"](jax.random.key(0), (3, 3, 8, 16), jnp.float32)
    matrix = kernel.reshape(72, 16)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(16), atol=1e-5)
