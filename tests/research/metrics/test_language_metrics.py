"""Metrics of the next character against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.metrics import language

RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 5, (3, 7))
COUNTED = np.array([[1] * 6, [1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1]], bool)
LOG_P = np.asarray(jax.nn.log_softmax(RNG.normal(size=(3, 6, 5)).astype("f")))


def test_each_counted_character_counts_the_same():
    found = language.measure(jnp.array(LOG_P), {"tokens": jnp.array(TOKENS), "counted": COUNTED})
    rows = [
        [
            (-LOG_P[i, t, TOKENS[i, t + 1]], LOG_P[i, t].argmax() == TOKENS[i, t + 1])
            for t in np.flatnonzero(COUNTED[i])
        ]
        for i in range(3)
    ]
    for name, column, unit in (
        ("cross_entropy", 0, 1.0),
        ("bits_per_character", 0, np.log(2)),
        ("accuracy", 1, 1.0),
    ):
        values, weights = found[name]
        np.testing.assert_allclose(
            values, [np.mean([x[column] for x in row]) / unit for row in rows], rtol=1e-5
        )
        np.testing.assert_array_equal(weights, [6, 3, 5])


@pytest.mark.parametrize(
    ("held_out", "said"),
    [(0.0, "of the text that was learned"), (0.1, "of the last 10 % of the text, never trained")],
)
def test_the_protocol_says_which_text_is_measured(held_out, said):
    lines = language.protocol(96, held_out)
    assert set(lines) == {"cross_entropy", "bits_per_character", "accuracy"}
    assert all(f"windows of 96 characters {said}" in line for line in lines.values())
