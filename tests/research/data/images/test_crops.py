"""Ten crops: where they lie, and that a classifier's probabilities are averaged over them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import classification
from research.data.images.crops import crops as crops_of
from research.data.images.preprocessing import Preprocessing


@pytest.mark.parametrize(("count", "given"), [(1, 1), (5, 5), (10, 10)])
def test_crops_lie_in_corners_and_middle_and_are_mirrored(count, given):
    image = jnp.zeros((1, 16, 32, 1)).at[0, :, :4].set(1.0)  # a bar at the left: 4 of 32 columns
    found = np.asarray(crops_of(image, count))
    assert found.shape == (given, 1, 16, 32, 1)
    ink = found.sum((1, 2, 3, 4)) / 16
    if count == 1:
        assert ink.tolist() == [4]
        return
    # 28 of 32 columns: at the left all 4 of them, at the right none, in the middle 2; enlarged 8/7.
    np.testing.assert_allclose(ink[:5], np.array([4, 0, 4, 0, 2]) * 8 / 7, atol=0.15)
    if count == 10:
        np.testing.assert_array_equal(found[5:], found[:5, :, :, ::-1])


def test_probabilities_are_averaged_over_the_crops():
    config = dataclasses.replace(classification.Config(), model="linear")
    ready = Preprocessing((8, 8), 1, mean=(100.0,), std=(50.0,))
    facts = {"class_names": ["a", "b", "c"], "preprocessing": ready.to_json()}
    facts |= {"train_examples": 4, "monitored": ""}
    image = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype(np.uint8)
    batch = {"image": image, "label": np.zeros(4, "i")}
    plain = classification.build(config, facts)
    many = classification.build(dataclasses.replace(config, test_crops="10"), facts)
    variables = plain.network.init(jax.random.key(0))
    predict = plain.evaluation.predict
    each = [
        predict(variables, {**batch, "image": crop}) for crop in crops_of(jnp.asarray(image), 10)
    ]
    mean = np.exp(np.array(each)).mean(0)
    np.testing.assert_allclose(np.exp(many.evaluation.predict(variables, batch)), mean, rtol=1e-5)
    np.testing.assert_allclose(mean.sum(1), 1, rtol=1e-5)
