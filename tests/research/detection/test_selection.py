"""What a detector that knows a background class is sure of."""

import jax
import jax.numpy as jnp
import numpy as np

from research.detection.selection import evidence


def test_evidence_is_the_best_regions_odds_against_background():
    logits = jax.random.normal(jax.random.key(0), (3, 5, 4))
    real = np.ones((3, 5, 1), bool)
    real[1, 2:] = False
    found = evidence(logits, jnp.asarray(real))
    probability = np.asarray(jax.nn.softmax(logits))
    for i in range(3):
        some = probability[i, real[i, :, 0]]
        np.testing.assert_allclose(
            jax.nn.sigmoid(found["objectness"][i]), (1 - some[:, 0]).max(), rtol=1e-5
        )
        odds = some[:, 1:] / some[:, :1]
        np.testing.assert_allclose(found["evidence"][i], np.log(odds).max(0), rtol=1e-4, atol=1e-5)
    assert evidence(logits)["objectness"][1] >= found["objectness"][1]
