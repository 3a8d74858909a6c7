import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.losses.classification import softmax_cross_entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_by_a_loop_over_soft_targets(smoothing):
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(6, 4)) * 3, rng.dirichlet(np.ones(4), 6)
    expected = []
    for z, t in zip(logits, targets, strict=True):
        p = np.exp(z) / np.exp(z).sum()
        q = (1 - smoothing) * t + smoothing / 4
        expected.append(-sum(qk * np.log(pk) for qk, pk in zip(q, p, strict=True)))
    loss = softmax_cross_entropy(
        jnp.array(logits, jnp.float32), jnp.array(targets, jnp.float32), smoothing
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_one_hot_targets_give_optaxs_integer_loss_and_its_gradient():
    rng = np.random.default_rng(1)
    logits, labels = jnp.array(rng.normal(size=(8, 5)), jnp.float32), rng.integers(0, 5, 8)
    ours = lambda z: softmax_cross_entropy(z, jax.nn.one_hot(labels, 5))
    theirs = lambda z: optax.softmax_cross_entropy_with_integer_labels(z, labels)
    np.testing.assert_allclose(ours(logits), theirs(logits), rtol=1e-5)
    np.testing.assert_allclose(
        jax.grad(lambda z: ours(z).sum())(logits),
        jax.grad(lambda z: theirs(z).sum())(logits),
        rtol=1e-4,
        atol=1e-6,
    )


def test_certain_logits_stay_finite():
    logits = jnp.array([[1e4, 0.0], [0.0, 1e4]])
    targets = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(softmax_cross_entropy(logits, targets), [0.0, 1e4])
    loss, gradient = jax.value_and_grad(lambda z: softmax_cross_entropy(z, targets).sum())(logits)
    assert np.isfinite(loss) and np.isfinite(gradient).all()


def test_bfloat16_logits_are_worked_on_in_float32():
    logits = jnp.array([[3.0, -1.0, 0.5]], jnp.bfloat16)  # exact in bfloat16
    loss = softmax_cross_entropy(logits, jnp.array([[0.0, 1.0, 0.0]]))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, [4 + np.log1p(np.exp(-4) + np.exp(-2.5))], rtol=1e-6)
