"""Objectives and parameterisations against loops, definitions and inverses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.understanding import objectives
from research.understanding.parameterisation import fourier, pixels, squashed

RNG = np.random.default_rng(0)


def test_the_gram_matrix_and_style_loss_are_gatys_equations_3_and_4():
    a, b = RNG.normal(size=(2, 1, 4, 5, 3)).astype("f")

    def gram(maps):
        flat = maps.reshape(20, 3)
        return np.array([[(flat[:, i] * flat[:, j]).sum() for j in range(3)] for i in range(3)])

    n, m = 3, 20
    expected = ((gram(a[0]) - gram(b[0])) ** 2).sum() / (4 * n**2 * m**2)
    found = objectives.style_loss(jnp.asarray(a), objectives.gram_matrix(jnp.asarray(b)))
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    # Style knows no places.
    shuffled = RNG.permutation(a.reshape(20, 3)).reshape(a.shape)
    grams = [objectives.gram_matrix(jnp.asarray(x)) for x in (a, shuffled)]
    np.testing.assert_allclose(*grams, rtol=1e-5)


def test_losses_are_zero_at_what_is_wanted_alone():
    a, b = jnp.asarray(RNG.normal(size=(2, 2, 4, 5, 3)), jnp.float32)
    for loss in (objectives.content_loss, objectives.inversion_loss):
        assert not loss(a, a).any() and (loss(a, b) > 0).all()
    np.testing.assert_allclose(objectives.inversion_loss(0 * a, a), 1.0, rtol=1e-6)
    np.testing.assert_allclose(
        objectives.content_loss(a, b), 0.5 * ((a - b) ** 2).mean((1, 2, 3)), rtol=1e-6
    )


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_total_variation_is_its_definition(power):
    image = RNG.normal(size=(6, 5, 2)).astype("f")
    total = 0.0
    for i in range(5):
        for j in range(4):
            for c in range(2):
                dy, dx = image[i + 1, j, c] - image[i, j, c], image[i, j + 1, c] - image[i, j, c]
                total += (dx**2 + dy**2) ** (power / 2)
    found = objectives.total_variation(jnp.asarray(image)[None], power)
    np.testing.assert_allclose(found[0], total / 40, rtol=1e-4)
    flat = jax.grad(lambda x: objectives.total_variation(x, power).sum())(jnp.ones((1, 4, 4, 3)))
    assert np.isfinite(flat).all()


@pytest.mark.parametrize(
    ("space", "shape"),
    [
        (pixels(jnp.array([120.0, 110.0, 100.0]), 64.0), (2, 7, 6, 3)),
        (squashed(fourier(7, 6), 3, True), (2, 7, 6, 3)),
        (squashed(fourier(6, 7), 3, False), (2, 6, 7, 3)),
        (squashed(fourier(8, 8), 1, True), (2, 8, 8, 1)),
    ],
    ids=["pixels", "fourier", "plain colours", "grey"],
)
def test_parameterisations_come_back_to_the_image(space, shape):
    image = jnp.asarray(RNG.uniform(20, 230, shape), jnp.float32)
    np.testing.assert_allclose(space.to_images(space.from_images(image)), image, atol=0.05)


def test_a_step_in_fourier_coordinates_moves_low_frequencies_farther():
    space = fourier(32, 32)
    spectrum = np.zeros((1, 32, 17, 1, 2), "f")
    sizes = []
    for row in (1, 4, 16):
        p = spectrum.copy()
        p[0, row, 0, 0, 0] = 1.0
        sizes.append(float(jnp.abs(space.to_images(jnp.asarray(p))).max()))
    np.testing.assert_allclose(np.array(sizes) / sizes[0], [1, 1 / 4, 1 / 16], rtol=1e-4)
