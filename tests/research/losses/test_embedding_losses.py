"""--loss=NAME is the loss of that name, under the options that it has."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.errors import UserError
from research.losses.config import LOSSES, LossConfig
from research.losses.embedding import PROXY_LOSSES, embedding_loss, watch_for_collapse
from research.losses.metric_pairs import (
    contrastive_loss,
    siamese_loss,
    supervised_contrastive_loss,
)
from research.losses.pairwise import spread
from research.losses.proxies import arcface_logits, normalise, proxy_nca_loss, softmax_logits
from research.losses.triplet import triplet_loss

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = normalise(jnp.array(RNG.normal(size=(12, 4)), jnp.float32))
CLASSES = jnp.array(RNG.integers(0, 3, 12))
MASK = jnp.arange(12) < 10
OUTPUTS = {
    "embedding": X,
    "weights": jnp.array([0.5, 2.0, 0.1, 1.0]),
    "bias": jnp.float32(0.3),
    "proxies": jnp.array(RNG.normal(size=(3, 4)), jnp.float32),
}
CHOSEN = LossConfig(logit_scale=7.0, margin=0.4)


def expected(name):
    proxies, scale = OUTPUTS["proxies"], CHOSEN.logit_scale
    plain = softmax_logits(X, proxies, scale)
    entropy = optax.softmax_cross_entropy_with_integer_labels
    if name in PROXY_LOSSES:
        loss = {
            "softmax": lambda: entropy(plain, CLASSES),
            "arcface": lambda: entropy(arcface_logits(X, proxies, CLASSES, scale, 0.4), CLASSES),
            "proxy_nca": lambda: proxy_nca_loss(X, proxies, CLASSES, scale),
        }[name]()
        return loss, (plain.argmax(1) == CLASSES).astype(jnp.float32)
    return {
        "triplet": lambda: triplet_loss(X, CLASSES, MASK, KEY, mining="batch_all", margin=0.4),
        "contrastive": lambda: contrastive_loss(X, CLASSES, MASK, margin=0.4),
        "supcon": lambda: supervised_contrastive_loss(X, CLASSES, MASK, scale=scale),
        "siamese": lambda: siamese_loss(X, CLASSES, MASK, KEY, OUTPUTS["weights"], OUTPUTS["bias"]),
    }[name]()


@pytest.mark.parametrize("name", LOSSES)
def test_each_name_is_its_loss(name):
    options = LossConfig(loss=name, mining="batch_all", logit_scale=7.0, margin=0.4)
    loss, measures = embedding_loss(options, OUTPUTS, CLASSES, MASK, KEY)
    true_loss, true_measure = expected(name)
    np.testing.assert_array_equal(loss, true_loss)
    np.testing.assert_array_equal(measures.pop("spread"), spread(X, MASK))
    share = "active" if name in ("triplet", "contrastive") else "accuracy"
    assert set(measures) == {share}
    np.testing.assert_array_equal(measures[share], true_measure)


def test_squared_distances_are_asked_for():
    losses = [
        embedding_loss(LossConfig(distance=distance), OUTPUTS, CLASSES, MASK, KEY)[0]
        for distance in ("squared", "plain")
    ]
    for loss, squared in zip(losses, (True, False), strict=True):
        options = {"margin": LossConfig().margin, "mining": LossConfig().mining}
        true, _ = triplet_loss(X, CLASSES, MASK, KEY, squared=squared, **options)
        np.testing.assert_array_equal(loss, true)
    assert np.abs(losses[0] - losses[1]).max() > 0.01


def test_a_collapse_is_said_or_stops_the_run():
    means = {"train/spread": 5e-4, "train/loss": 0.2}
    assert watch_for_collapse(LossConfig(), {**means, "train/spread": 1e-3}) is None
    said = watch_for_collapse(LossConfig(), means)
    assert said is not None and "5.0e-04" in said and "0.200" in said
    with pytest.raises(UserError, match="have collapsed into one point"):
        watch_for_collapse(LossConfig(stop_on_collapse=True), means)
