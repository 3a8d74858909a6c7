import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.models.fcn import bilinear_kernel
from research.nn.resampling import Upsample, crop_centre, pad_to_multiple, resize, space_to_depth
from research.nn.transposed_convolution import transposed_convolution


def maps(*shape):
    return jnp.array(np.random.default_rng(0).normal(size=shape), "f")


def test_space_to_depth_is_what_a_loop_says():
    x = maps(2, 4, 6, 3)
    expected = np.zeros((2, 2, 3, 12), "f")
    for i in range(4):
        for j in range(6):
            channel = 3 * (2 * (i % 2) + j % 2)
            expected[:, i // 2, j // 2, channel : channel + 3] = x[:, i, j]
    np.testing.assert_array_equal(space_to_depth(x, 2), expected)


def test_nearest_repeats_and_bilinear_is_a_loop():
    x = maps(1, 3, 2, 1)
    near, smooth = (np.asarray(resize(x, (6, 4), m))[0, ..., 0] for m in ("nearest", "bilinear"))
    for i in range(6):
        for j in range(4):
            assert near[i, j] == x[0, i // 2, j // 2, 0]
            y = np.clip((i + 0.5) / 2 - 0.5, 0, 2)
            z = np.clip((j + 0.5) / 2 - 0.5, 0, 1)
            a, b = int(min(y, 1)), 0
            value = sum(
                (1 - abs(y - r)) * (1 - abs(z - c)) * float(x[0, r, c, 0])
                for r in (a, a + 1)
                for c in (b, b + 1)
            )
            assert smooth[i, j] == pytest.approx(value, abs=1e-6)
    # A size that is no multiple: what jax.image says.
    np.testing.assert_array_equal(
        resize(x, (7, 5), "nearest"), jax.image.resize(x, (1, 7, 5, 1), "nearest")
    )


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
def test_convolving_first_equals_resizing_first(method):
    x = maps(2, 5, 4, 3)
    layer = Upsample(2, method)
    variables = layer.init(jax.random.key(0), x)
    kernel = variables["params"]["up"]["kernel"][0, 0]
    expected = resize(x, (10, 8), method) @ kernel
    np.testing.assert_allclose(layer.apply(variables, x), expected, atol=1e-5)


def test_the_bilinear_filter_interpolates():
    x = maps(1, 6, 5, 2)
    large = transposed_convolution(
        x, bilinear_kernel(jax.random.key(0), (4, 4, 2, 2)), 2, padding=1
    )
    expected = resize(x, (12, 10))
    inside = np.s_[:, 1:-1, 1:-1]  # at the border the filter meets zeros
    np.testing.assert_allclose(large[inside], expected[inside], atol=1e-5)


def test_padding_and_cropping():
    x = maps(1, 5, 8, 1)
    padded = pad_to_multiple(x, 4)
    assert padded.shape == (1, 8, 8, 1) and not padded[:, 5:].any()
    np.testing.assert_array_equal(padded[:, :5], x)
    assert pad_to_multiple(padded, 4) is padded
    np.testing.assert_array_equal(crop_centre(x, (2, 4)), x[:, 1:3, 2:6])
