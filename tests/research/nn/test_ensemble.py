"""The mean of several networks' probabilities, by its logarithm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from research.errors import UserError
from research.nn.ensemble import ensemble

IMAGES = {"image_size": [4, 4], "channels": 3, "mean": [1.0]}
FACTS = {"class_names": ["a", "b", "c"], "preprocessing": IMAGES}


def member(**facts):
    """Predicts what its variables are."""
    return toys.replaced(
        toys.experiment(), facts={**FACTS, **facts}, predict=lambda variables, batch: variables
    )


def test_it_predicts_the_log_of_the_mean_of_probabilities_of_classes_or_pixels():
    rng = np.random.default_rng(0)
    for shape in ((5,), (2, 4, 3)):
        p = rng.dirichlet(np.ones(3), (3, *shape))
        found = ensemble([member()] * 3).evaluation.predict(list(jnp.log(p)), {})
        np.testing.assert_allclose(found, np.log(p.mean(0)), rtol=1e-4, atol=1e-6)


def test_probabilities_that_no_number_holds_are_averaged():
    sure = jax.nn.log_softmax(jnp.array([[500.0, 0.0, 0.0]]))
    found = ensemble([member()] * 2).evaluation.predict([sure, sure], {})
    np.testing.assert_allclose(found, [[0.0, -500.0, -500.0]], atol=1e-4)


def test_members_know_the_same_classes_and_predict_nothing_else():
    assert ensemble([member(), member(preprocessing={**IMAGES, "mean": [2.0]})])
    assert ensemble([member(), member(preprocessing={**IMAGES, "decode": "full"})])  # or unsaid
    with pytest.raises(UserError, match="the first and number 2 differ in preprocessing"):
        ensemble([member(), member(preprocessing={**IMAGES, "decode": "reduced"})])
    with pytest.raises(UserError, match="the first and number 2 differ in class_names"):
        ensemble([member(), member(class_names=["a", "b", "d"])])
    with pytest.raises(UserError, match="predicts something else"):
        ensemble([member()] * 2).evaluation.predict([{"boxes": jnp.zeros(3)}] * 2, {})
