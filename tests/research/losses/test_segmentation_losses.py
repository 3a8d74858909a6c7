"""Each loss against a plain loop over pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import UserError
from research.losses.segmentation import (
    LOSSES,
    balanced_weights,
    focal,
    parse,
)

B, H, W, C = 3, 5, 4, 6  # all different: an axis that is taken for another shows


def case():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, C, (B, H, W)).astype("u1")
    labels[0, :2] = 255
    labels[2][labels[2] == 1] = 0  # a class that does not occur
    logits = rng.normal(size=(B, H, W, C)).astype("f")
    return logits, labels, labels != 255, rng.uniform(0.5, 2, (B, H, W)).astype("f")


def pixels(labels, b):
    return [(i, j) for i in range(H) for j in range(W) if labels[b, i, j] != 255]


def softmax(x):
    return np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum()


def loop(name, logits, labels, weight):
    result = []
    for b in range(B):
        inside = pixels(labels, b)
        p = {at: softmax(logits[b][at]) for at in inside}
        if name == "cross_entropy":
            values = [-weight[b][at] * np.log(p[at][labels[b][at]]) for at in inside]
            result.append(sum(values) / len(values))
        if name == "focal":
            true = {at: p[at][labels[b][at]] for at in inside}
            values = [-weight[b][at] * (1 - true[at]) ** 2 * np.log(true[at]) for at in inside]
            result.append(sum(values) / len(values))
        if name == "dice":
            scores = []
            for c in range(C):
                g = {at: float(labels[b][at] == c) for at in inside}
                if sum(g.values()):
                    both = sum(p[at][c] * g[at] for at in inside)
                    scores.append(2 * both / (sum(x[c] for x in p.values()) + sum(g.values())))
            result.append(1 - sum(scores) / len(scores))
    return np.array(result)


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_loss_is_its_loop(name):
    logits, labels, valid, weight = case()
    value = LOSSES[name](*map(jnp.asarray, (logits, labels, valid, weight)))
    np.testing.assert_allclose(value, loop(name, logits, labels, weight), rtol=1e-5)


@pytest.mark.parametrize("name", list(LOSSES))
def test_ignored_pixels_have_no_gradient_and_nothing_is_nan(name):
    logits, labels, valid, weight = map(jnp.asarray, case())
    labels, valid = labels.at[1].set(255), valid.at[1].set(False)  # an image without any class
    logits = logits.at[2].set(logits[2] * 1000)  # certain of everything, right and wrong
    weight = jnp.where(valid, weight, jnp.nan)
    gradient = jax.grad(lambda x: LOSSES[name](x, labels, valid, weight).sum())(logits)
    assert np.isfinite(gradient).all()
    assert not gradient[~np.asarray(valid)].any()
    assert gradient[0].any()
    assert LOSSES[name](logits, labels, valid, weight)[1] == 0


def test_sums_and_factors():
    arrays = tuple(map(jnp.asarray, case()))
    expected = LOSSES["cross_entropy"](*arrays) + 0.5 * LOSSES["dice"](*arrays)
    np.testing.assert_allclose(parse("cross_entropy + 0.5*dice")(*arrays), expected, rtol=1e-6)
    np.testing.assert_allclose(
        focal(*arrays, gamma=0.0), LOSSES["cross_entropy"](*arrays), rtol=1e-5
    )
    with pytest.raises(UserError, match="Did you mean 'dice'"):
        parse("cross_entropy+dise")
    for factor in ("x", "-1", "0"):
        with pytest.raises(UserError, match="no positive number"):
            parse(f"{factor}*dice")


def test_balanced_weights_have_mean_one_over_pixels():
    weights = balanced_weights(np.array([900, 100, 0]))
    assert weights[1] == pytest.approx(3 * weights[0]) and weights[2] == 0
    assert (weights * np.array([900, 100, 0])).sum() / 1000 == pytest.approx(1)
