"""Attacks on a linear classifier, where the answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.understanding.adversarial import margin, norms, pgd, smallest_perturbation

RNG = np.random.default_rng(0)
WEIGHTS = jnp.asarray(RNG.normal(size=(5 * 4 * 3, 4)), jnp.float32)
IMAGES = jnp.asarray(RNG.uniform(100, 150, size=(2, 5, 4, 3)), jnp.float32)


def scores(images):
    return (images.reshape(len(images), -1) - 125.0) @ WEIGHTS


UNIT = scores(IMAGES).argmax(-1)


def loss_of(i, toward=None):
    unit = UNIT[i] if toward is None else toward
    return lambda images: margin(
        scores(images), jnp.full(len(images), unit), toward=toward is not None
    )


def closest(i, order):
    """|margin| / dual norm of its gradient, over the other classes: how far the border is."""
    s, w = np.asarray(scores(IMAGES))[i], np.asarray(WEIGHTS)
    own = int(UNIT[i])
    gaps = []
    for k in set(range(4)) - {own}:
        difference = w[:, own] - w[:, k]
        dual = abs(difference).sum() if order == "linf" else np.sqrt((difference**2).sum())
        gaps.append((s[own] - s[k]) / dual)
    return float(min(gaps))


def test_margin_is_negative_where_the_attack_has_succeeded():
    logits = jnp.array([[3.0, 1.0, 2.0]])
    assert margin(logits, jnp.array([0]), toward=False)[0] == 1.0
    assert margin(logits, jnp.array([0]), toward=True)[0] == -1.0
    assert margin(logits, jnp.array([1]), toward=True)[0] == 2.0


def test_fgsm_is_one_step_of_the_sign():
    found = pgd(loss_of(0), IMAGES[:1], 3.0, "linf", steps=1, size=1.0)
    gradient = jax.grad(lambda x: loss_of(0)(x).sum())(IMAGES[:1])
    np.testing.assert_allclose(found, IMAGES[:1] - 3 * jnp.sign(gradient), atol=1e-4)


@pytest.mark.parametrize("order", ["linf", "l2"])
def test_the_smallest_perturbation_of_a_linear_classifier_is_the_distance_to_its_border(order):
    for i in (0, 1):
        true = closest(i, order)
        highest = 10 * true
        found = smallest_perturbation(
            loss_of(i), IMAGES[i : i + 1], order, highest, rounds=14, steps=30
        )
        assert scores(found.images)[0].argmax() != UNIT[i]
        size = norms(found.images - IMAGES[i : i + 1])[order][0]
        assert 0.999 * true <= size <= 1.03 * true


def test_a_target_is_reached_and_none_is_said_to_be_found_where_none_is():
    target = (int(UNIT[0]) + 1) % 4
    found = smallest_perturbation(loss_of(0, target), IMAGES[:1], "linf", 120.0)
    assert scores(found.images)[0].argmax() == target and np.isfinite(found.epsilon[0])
    none = smallest_perturbation(loss_of(0), IMAGES[:1], "linf", 0.5 * closest(0, "linf"))
    assert np.isinf(none.epsilon[0])
    np.testing.assert_array_equal(none.images, IMAGES[:1])


def test_values_stay_in_range():
    found = pgd(loss_of(0), jnp.clip(IMAGES[:1], 148, 255) + 105, 50.0, "linf", 5, 0.5)
    assert found.max() <= 255.0
