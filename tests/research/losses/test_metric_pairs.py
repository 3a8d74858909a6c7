import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.losses.metric_pairs import (
    contrastive_loss,
    siamese_loss,
    supervised_contrastive_loss,
)
from research.losses.pairwise import draw, pairs, squared_distances
from research.losses.proxies import arcface_logits, normalise, proxy_nca_loss, softmax_logits

KEY = jax.random.key(3)
PAIRS = jnp.array([0, 0, 1, 1])


def random_batch(seed, size=14, classes=4, d=3):
    rng = np.random.default_rng(seed)
    embeddings = jnp.array(rng.normal(size=(size, d)), jnp.float32)
    return embeddings, jnp.array(rng.integers(0, classes, size)), jnp.array(rng.random(size) < 0.8)


def masked_mean(values, mask):
    return (values * mask).sum() / mask.sum()


@pytest.mark.parametrize("seed", range(3))
def test_contrastive_loss_is_the_mean_of_each_kind_of_pair(seed):
    e, labels, mask = random_batch(seed)
    loss, near = contrastive_loss(e, labels, mask, margin=1.5)
    same, other, inside = [], [], np.zeros(len(e))
    for a, b in itertools.permutations(np.flatnonzero(mask), 2):
        d = np.sqrt(((np.asarray(e[a], "d") - e[b]) ** 2).sum())
        (same if labels[a] == labels[b] else other).append(
            0.5 * d**2 if labels[a] == labels[b] else 0.5 * max(0, 1.5 - d) ** 2
        )
        inside[a] += labels[a] != labels[b] and d < 1.5
    assert masked_mean(loss, mask) == pytest.approx(np.mean(same) + np.mean(other), rel=1e-5)
    for a in np.flatnonzero(mask):
        negatives = sum(bool(mask[b]) and labels[a] != labels[b] for b in range(len(e)))
        assert near[a] == pytest.approx(inside[a] / max(negatives, 1))


@pytest.mark.parametrize("seed", range(3))
def test_supervised_contrastive_loss_is_the_formula_of_the_paper(seed):
    e, labels, mask = random_batch(seed)
    e = normalise(e)
    loss, right = supervised_contrastive_loss(e, labels, mask, scale=5.0)
    for a in np.flatnonzero(mask):
        others = [b for b in np.flatnonzero(mask) if b != a]
        same = [b for b in others if labels[b] == labels[a]]
        s = {b: 5 * float(np.asarray(e[a], "d") @ np.asarray(e[b], "d")) for b in others}
        total = sum(np.exp(s[b]) for b in others)
        expected = np.mean([-np.log(np.exp(s[p]) / total) for p in same]) if same else 0.0
        assert loss[a] == pytest.approx(expected, rel=1e-4)
        assert right[a] == (max(s, key=s.get) in same)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 0, 0, 0]], ids=["no positive", "no negative"])
@pytest.mark.parametrize("real", [1, 4])
def test_supervised_contrast_without_pairs_is_zero_or_finite(labels, real):
    labels, mask, same = jnp.array(labels), jnp.arange(4) < real, jnp.full((4, 3), 3**-0.5)
    f = lambda e: jnp.where(mask, supervised_contrastive_loss(e, labels, mask)[0], 0.0).sum()
    value, gradient = jax.value_and_grad(f)(same)
    assert np.isfinite(gradient).all()
    # Of four that are equal each of three others is as likely.
    assert value == pytest.approx(4 * np.log(3) if real == 4 and labels[1] == 0 else 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_siamese_loss_is_the_cross_entropy_of_a_loop(seed):
    e, labels, mask = random_batch(seed)
    weights, bias = jnp.array([0.5, 2.0, 0.0]), jnp.float32(1.0)
    loss, right = siamese_loss(e, labels, mask, KEY, weights, bias)
    positive, negative = draw(KEY, pairs(e, labels, mask))
    for a in range(len(e)):
        others = [b for b in range(len(e)) if mask[a] and mask[b] and b != a]
        both = {bool(labels[a] == labels[b]) for b in others} == {True, False}
        values, hits = [], []
        for b, same in ((positive[a], True), (negative[a], False)):
            p = 1 / (1 + np.exp(np.abs(np.asarray(e[a] - e[b])) @ np.asarray(weights) - 1.0))
            values.append(-np.log(p if same else 1 - p))
            hits.append((p > 0.5) == same)
            assert not both or (b in others and bool(labels[a] == labels[b]) == same)
        assert loss[a] == pytest.approx(np.mean(values) if both else 0.0, rel=1e-5)
        assert right[a] == (np.mean(hits) if both else 0.0)


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]], ids=["no negative", "no positive"])
def test_no_pair_gives_zero_siamese_loss_and_finite_gradients(labels):
    labels, mask, same = jnp.array(labels), jnp.ones(4, bool), jnp.full((4, 3), 0.5)
    f = lambda e: siamese_loss(e, labels, mask, KEY, jnp.ones(3), jnp.float32(0))[0].sum()
    value, gradient = jax.value_and_grad(f)(same)
    assert value == 0 and not np.any(gradient)
    g = lambda e: contrastive_loss(e, labels, mask)[0].sum()
    value, gradient = jax.value_and_grad(g)(same)
    # Nothing pulls where there is no positive pair; hinges of ½ each where there are negatives.
    assert value == pytest.approx(0.0 if labels[1] == 0 else 4 * 0.5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", ["contrastive", "supcon", "siamese"])
def test_a_batch_split_over_eight_devices_has_the_same_losses(loss):
    e, labels, mask = random_batch(1, size=16)

    def value(e, labels, mask, axis=None):
        if loss == "contrastive":
            return contrastive_loss(e, labels, mask, axis=axis)
        if loss == "supcon":
            return supervised_contrastive_loss(e, labels, mask, axis=axis)
        return siamese_loss(e, labels, mask, KEY, jnp.ones(3), jnp.float32(0), axis=axis)

    split = jax.pmap(lambda *batch: value(*batch, axis="data"), axis_name="data")(
        *(x.reshape(8, 2, *x.shape[1:]) for x in (e, labels, mask))
    )
    for a, b in zip(value(e, labels, mask), split, strict=True):
        np.testing.assert_allclose(a, b.reshape(-1), rtol=1e-5, atol=1e-6)


def test_arcface_adds_the_margin_to_the_angle_of_the_true_class():
    rng = np.random.default_rng(0)
    e, w = (jnp.array(rng.normal(size=(n, 5)), jnp.float32) for n in (6, 4))
    labels = jnp.array([0, 1, 2, 3, 0, 1])
    logits = arcface_logits(e, w, labels, scale=10.0, margin=0.5)
    for i, j in itertools.product(range(6), range(4)):
        a, b = np.asarray(e[i], "d"), np.asarray(w[j], "d")
        angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        if j == labels[i]:
            assert angle < np.pi - 0.5
            angle += 0.5
        assert logits[i, j] == pytest.approx(10 * np.cos(angle), rel=1e-3, abs=1e-3)
    np.testing.assert_allclose(
        arcface_logits(e, w, labels, 10.0, 0.0), softmax_logits(e, w, 10.0), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    "compare",
    [
        lambda e: squared_distances(e, e),
        lambda e: softmax_logits(e, e, 8.0),
        lambda e: arcface_logits(e, e, jnp.arange(4), 8.0, 0.5),
        lambda e: proxy_nca_loss(e, e, jnp.arange(4), 8.0),
        lambda e: supervised_contrastive_loss(e, PAIRS, jnp.ones(4, bool), scale=8.0)[0],
    ],
)
def test_examples_are_compared_with_all_digits_whatever_the_device_rounds_to(compare):
    """On an H200 arcface's logit of small angles rose with the angle, by TF32's 10 bits."""
    program = str(jax.make_jaxpr(jax.grad(lambda e: compare(e).sum()))(jnp.eye(4, 5)))
    products = program.split("dot_general[")[1:]
    assert products
    assert all("(Precision.HIGHEST, Precision.HIGHEST)" in one[:200] for one in products)


def test_arcface_falls_with_the_angle_all_the_way_and_has_finite_gradients():
    angles = jnp.linspace(0, np.pi, 200)
    e = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    w, labels = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.zeros(200, int)
    logits = arcface_logits(e, w, labels, 1.0, 0.5)[:, 0]
    assert (np.diff(logits) < 0).all()
    gradient = jax.grad(lambda e: arcface_logits(e, w, labels, 1.0, 0.5).sum())(e)
    assert np.isfinite(gradient).all()


def test_proxy_nca_is_the_formula_of_the_paper():
    rng = np.random.default_rng(1)
    e, proxies = (jnp.array(rng.normal(size=(n, 3)), jnp.float32) for n in (5, 4))
    labels = jnp.array([0, 1, 2, 3, 0])
    loss = proxy_nca_loss(e, proxies, labels, scale=3.0)
    unit = lambda v: np.asarray(v, "d") / np.linalg.norm(v)
    for i, y in enumerate(labels.tolist()):
        d = [3 * ((unit(e[i]) - unit(p)) ** 2).sum() for p in proxies]
        others = sum(np.exp(-d[z]) for z in range(4) if z != y)
        assert loss[i] == pytest.approx(-np.log(np.exp(-d[y]) / others), rel=1e-4)


def test_normalising_nothing_gives_nothing_with_a_finite_gradient():
    assert np.isfinite(jax.grad(lambda x: normalise(x).sum())(jnp.zeros((2, 3)))).all()
    np.testing.assert_allclose(jnp.linalg.norm(normalise(jnp.ones((2, 3))), axis=1), 1, rtol=1e-6)
