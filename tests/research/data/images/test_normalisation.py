import dataclasses
import json

import jax
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from research.data.images import normalisation
from research.data.images.preprocessing import Preprocessing
from research.data.sources.examples import Arrays
from research.errors import UserError


def smooth_images(count=60, side=24, channels=3):
    """Noise blurred within each channel and shared between them: neighbours are alike."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(count, side, side, channels)) + rng.normal(size=(count, side, side, 1))
    blurred = gaussian_filter(noise, (0, 0.8, 0.8, 0))
    return np.clip(128 + 60 * blurred / blurred.std(), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def split():
    return Arrays({"image": smooth_images()})


def learned(split, how):
    return normalisation.learn(Preprocessing((24, 24), 3), split, how)


def test_each_kind_leaves_the_mean_and_deviation_it_names(split):
    images = split.fields["image"]
    raw = learned(split, "raw").standardise(images)
    np.testing.assert_array_equal(raw, images.astype("f"))
    unit = learned(split, "unit").standardise(images)
    np.testing.assert_allclose(unit, images / 255, atol=1e-6)
    signed = learned(split, "signed").standardise(images)
    np.testing.assert_allclose(signed, images / 127.5 - 1, atol=1e-6)
    centred = learned(split, "centred").standardise(images)
    np.testing.assert_allclose(centred.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(centred.std((0, 1, 2)), images.std((0, 1, 2)), rtol=1e-4)
    standardised = learned(split, "standardised").standardise(images)
    np.testing.assert_allclose(standardised.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(standardised.std((0, 1, 2)), 1, rtol=1e-4)


def test_the_whitening_matrix_gives_unit_covariance_and_is_symmetric():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 3
    matrix = normalisation.whitening_matrix(vectors, regularisation=0.0)
    np.testing.assert_allclose(np.cov((vectors @ matrix).T, bias=True), np.eye(6), atol=1e-9)
    np.testing.assert_allclose(matrix, matrix.T)
    along = normalisation.whitening_matrix(vectors, regularisation=0.0, turned_back=False)
    np.testing.assert_allclose(np.cov((vectors @ along).T, bias=True), np.eye(6), atol=1e-9)
    assert np.abs(along - along.T).max() > 0.1  # along the principal axes, PCA whitening


def test_whitened_pixels_tell_little_of_their_neighbours_and_channels(split):
    def correlations(x):
        inner = x[:, 4:-4, 4:-4]
        pairs = [
            (inner[..., 0], x[:, 4:-4, 5:-3, 0]),
            (inner[..., 0], x[:, 5:-3, 4:-4, 0]),
            (inner[..., 0], inner[..., 1]),
        ]
        return [abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in pairs]

    images = split.fields["image"]
    before = correlations(learned(split, "standardised").standardise(images))
    after = correlations(learned(split, "whitened").standardise(images))
    assert min(before) > 0.4 and max(after) < 0.2, (before, after)


def test_whitening_is_saved_and_numpy_and_jax_agree(split):
    kept = learned(split, "whitened")
    again = Preprocessing.from_json(json.loads(json.dumps(kept.to_json())))
    assert again == kept and hash(again) == hash(kept)
    assert len(kept.whitening) == 5 * 5 * 3 * 3
    images = split.fields["image"][:4]
    host, device = kept.standardise(images), jax.jit(kept.standardise)(images)
    np.testing.assert_allclose(host, device, atol=1e-4)
    np.testing.assert_allclose(kept.standardise(images[0]), host[0], atol=1e-5)  # one image
    # The middle pixel is the sum over its patch, by the definition of cross-correlation.
    scaled = dataclasses.replace(kept, whitening=()).standardise(images)
    kernel = np.reshape(kept.whitening, (5, 5, 3, 3))
    middle = np.einsum("bijc,ijcd->bd", scaled[:, 10:15, 10:15], kernel)
    np.testing.assert_allclose(host[:, 12, 12], middle, rtol=1e-4, atol=1e-4)
    assert kept.unnormalised() == Preprocessing((24, 24), 3)


def test_small_images_have_small_patches():
    rng = np.random.default_rng(0)
    split = Arrays({"image": rng.integers(0, 256, (50, 1, 2, 1)).astype(np.uint8)})
    kept = normalisation.learn(Preprocessing((1, 2), 1), split, "whitened")
    np.testing.assert_allclose(kept.standardise(split.fields["image"]).std(), 1, atol=0.02)


def test_whitened_images_have_no_picture(split):
    with pytest.raises(UserError, match="--input_normalisation"):
        learned(split, "whitened").restore(np.zeros((24, 24, 3), np.float32))
