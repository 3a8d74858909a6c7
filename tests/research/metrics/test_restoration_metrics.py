"""PSNR and SSIM of restored images, beside scikit-image's and a plain formula."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from research.errors import UserError
from research.metrics import restoration

RNG = np.random.default_rng(0)
TRUE = np.linspace(0, 1, 3 * 19 * 17).reshape(1, 19, 17, 3).repeat(3, 0).astype("f")
TRUE[1] = RNG.uniform(size=TRUE[1].shape)
GIVEN = TRUE + np.array([0.02, 0.1, 0.4]).reshape(3, 1, 1, 1) * RNG.normal(size=TRUE.shape)
GIVEN = jnp.asarray(GIVEN, "float32")  # some of it lies outside 0..1
TRUE = jnp.asarray(TRUE)


def test_psnr_is_of_each_image_after_what_lies_outside_is_cut_off():
    expected = []
    for image, true in zip(GIVEN.tolist(), TRUE.tolist(), strict=True):
        values, wanted = np.ravel(image).tolist(), np.ravel(true).tolist()
        errors = [(min(max(v, 0), 1) - w) ** 2 for v, w in zip(values, wanted, strict=True)]
        expected.append(10 * math.log10(1 / (sum(errors) / len(errors))))
    np.testing.assert_allclose(restoration.psnr(GIVEN, TRUE), expected, rtol=1e-4)
    np.testing.assert_allclose(restoration.psnr(TRUE, TRUE), 100)


def test_ssim_is_scikit_images():
    """Its Gaussian window of Wang et al.: 11 pixels, deviation 1.5, variances of populations."""
    inside = slice(5, -5)  # where the whole window lies in the image
    for image, true, found in zip(GIVEN, TRUE, restoration.ssim(GIVEN, TRUE), strict=True):
        _, values = structural_similarity(
            np.clip(np.asarray(image), 0, 1),
            np.asarray(true),
            gaussian_weights=True,
            use_sample_covariance=False,
            channel_axis=-1,
            data_range=1.0,
            full=True,
        )
        assert found == pytest.approx(values[inside, inside].mean(), abs=2e-4)
    np.testing.assert_allclose(restoration.ssim(TRUE, TRUE), 1, atol=1e-5)


@pytest.mark.parametrize("size", [(10, 17), (19, 8)])
def test_ssim_of_images_smaller_than_its_window_is_refused(size):
    """A convolution would take the image for the window, and its value would look like any."""
    small = jnp.zeros((1, *size, 3))
    with pytest.raises(UserError, match=f"images of {size[0]} x {size[1]} pixels: .* 11 pixels"):
        restoration.ssim(small, small)


def test_what_was_given_is_scored_beside_what_was_restored():
    found = restoration.measure(TRUE, GIVEN, TRUE)
    assert found.keys() == restoration.PROTOCOL.keys()
    np.testing.assert_array_equal(found["psnr_given"][0], restoration.psnr(GIVEN, TRUE))
    np.testing.assert_array_equal(found["ssim_given"][0], restoration.ssim(GIVEN, TRUE))
    np.testing.assert_array_equal(found["psnr"][0], restoration.psnr(TRUE, TRUE))
    assert all((weight == 1).all() and weight.shape == (3,) for _, weight in found.values())
