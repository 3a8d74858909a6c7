"""Transposed convolution against a loop of stamps, XLA's operator, and convolution's gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.hardware.target import Target, compiled_for
from research.nn.convolution import convolution
from research.nn.transposed_convolution import TransposedConv, transposed_convolution

CASES = [(2, 2, 0), (4, 2, 1), (3, 2, 0), (3, 1, 1), (5, 3, 2), (1, 2, 0)]


def arrays(size):
    rng = np.random.default_rng(0)
    maps, kernel = rng.normal(size=(2, 4, 5, 3)), rng.normal(size=(size, size, 3, 6))
    return jnp.array(maps, jnp.float32), jnp.array(kernel, jnp.float32)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])  # which formulation is taken
@pytest.mark.parametrize(("size", "stride", "padding"), CASES)
def test_every_value_stamps_the_filter(size, stride, padding, backend):
    maps, kernel = (np.asarray(x) for x in arrays(size))
    out = np.zeros((2, 3 * stride + size, 4 * stride + size, 6))
    for i in range(4):
        for j in range(5):
            stamp = np.einsum("bi,rcio->brco", maps[:, i, j], kernel)
            out[:, i * stride : i * stride + size, j * stride : j * stride + size] += stamp
    expected = out[:, padding : out.shape[1] - padding, padding : out.shape[2] - padding]
    with compiled_for(Target(backend)):
        found = jax.jit(lambda *args: transposed_convolution(*args, stride, padding))(maps, kernel)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "stride", "padding"), CASES)
def test_the_value_and_the_gradients_are_xla_s(size, stride, padding):
    def xla(maps, kernel):
        pads = [(size - 1 - padding,) * 2] * 2
        return jax.lax.conv_transpose(maps, kernel[::-1, ::-1], (stride, stride), pads)

    def ours(maps, kernel):
        return transposed_convolution(maps, kernel, stride, padding)

    def value_and_gradients(f):
        loss = jax.value_and_grad(lambda *args: (f(*args) ** 3).sum(), argnums=(0, 1))
        return jax.jit(loss)(*arrays(size))

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * abs(b).max()),
        value_and_gradients(ours),
        value_and_gradients(xla),
    )


def test_it_is_the_gradient_of_a_convolution():
    maps, kernel = arrays(4)
    images = jnp.zeros((2, 8, 10, 6))
    _, pullback = jax.vjp(
        lambda x: convolution(x, kernel.transpose(0, 1, 3, 2), stride=2, padding=1), images
    )
    np.testing.assert_allclose(
        transposed_convolution(maps, kernel, 2, 1), pullback(maps)[0], rtol=1e-4, atol=1e-4
    )


def test_the_layer_enlarges_by_its_stride():
    maps, _ = arrays(2)
    layer = TransposedConv(6, size=2, stride=2)
    enlarged, variables = layer.init_with_output(jax.random.key(0), maps)
    assert enlarged.shape == (2, 8, 10, 6)
    assert {k: v.shape for k, v in variables["params"].items()} == {
        "kernel": (2, 2, 3, 6),
        "bias": (6,),
    }
