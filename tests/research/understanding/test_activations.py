import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.models import create
from research.nn.activations import ACTIVATIONS
from research.nn.initialisers import INITIALISERS
from research.understanding.activations import layer_statistics


def look(name, activation, initialiser, size=6, batch=64, classes=10, **attributes):
    """Statistics of a fresh model on noise, and what they were computed from."""
    model = create(
        name,
        num_classes=classes,
        activation=ACTIVATIONS[activation],
        kernel_init=INITIALISERS[initialiser],
        **attributes,
    )
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(batch, size, size, 1)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, classes, batch))
    variables = model.init(jax.random.key(0), images)

    def loss(logits):
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    found = layer_statistics(
        model, variables, images, loss, ACTIVATIONS[activation], jax.random.key(1)
    )
    return found, (variables, images, np.asarray(labels))


def test_statistics_of_a_network_are_those_of_its_equations():
    (value, rows), (variables, images, labels) = look("mlp", "tanh", "xavier", hidden=(7, 5))
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    x = np.asarray(images).transpose(0, 3, 1, 2).reshape(len(images), -1)
    h0 = np.tanh(x @ p["hidden0"]["kernel"])
    h1 = np.tanh(h0 @ p["hidden1"]["kernel"])
    logits = h1 @ p["fc"]["kernel"]
    assert [row.layer for row in rows] == ["hidden0", "hidden1", "fc"]
    for row, h in zip(rows, (h0, h1, logits), strict=True):
        assert row.mean == pytest.approx(h.mean(), abs=1e-5)
        assert row.std == pytest.approx(h.std(), rel=1e-4)
    flat = 1 - h0**2 < 0.05
    assert rows[0].saturated == pytest.approx(flat.mean()) and flat.mean() > 0
    assert rows[0].dead == pytest.approx(flat.all(0).mean())
    assert math.isnan(rows[2].saturated) and math.isnan(rows[2].dead)
    # The gradient of the last kernel is h' (p - y) / n, of the one before x' (1 - h^2) of it.
    p_class = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    delta = (p_class - np.eye(10)[labels]) / len(labels)
    below = (1 - h1**2) * (delta @ p["fc"]["kernel"].T)
    assert rows[2].gradient == pytest.approx(np.linalg.norm(h1.T @ delta), rel=1e-4)
    assert rows[1].gradient == pytest.approx(np.linalg.norm(h0.T @ below), rel=1e-4)
    right = p_class[np.arange(len(labels)), labels]
    assert value == pytest.approx(-np.log(right).mean(), rel=1e-5)


def test_a_unit_that_is_never_on_is_dead():
    model = create("mlp", num_classes=3, hidden=(4,))
    images = jnp.abs(jax.random.normal(jax.random.key(0), (16, 3, 3, 1)))
    variables = model.init(jax.random.key(0), images)
    kernel = jnp.ones((9, 4)).at[:, 0].set(-1.0)  # of positive inputs, unit 0 is never positive
    variables["params"]["hidden0"]["kernel"] = kernel
    loss = lambda logits: (logits**2).sum(-1)
    relu = ACTIVATIONS["relu"]
    _, rows = layer_statistics(model, variables, images, loss, relu, jax.random.key(0))
    assert rows[0].dead == 0.25 and rows[0].saturated == 0.25


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_of_zeros_nothing_is_learned(activation):
    (value, rows), _ = look("mlp", activation, "zeros", hidden=(6, 6))
    assert value == pytest.approx(math.log(10), rel=1e-6)
    assert [row.gradient for row in rows] == [0, 0, 0]
    assert [row.std for row in rows] == [0, 0, 0]


def test_he_keeps_signals_through_ten_layers_of_relu_and_small_normal_numbers_do_not():
    hidden = (100,) * 10
    ratios = {}
    for initialiser in ("he", "xavier", "normal"):
        (_, rows), _ = look("mlp", "relu", initialiser, hidden=hidden)
        ratios[initialiser] = rows[9].std / rows[0].std
    assert 0.4 < ratios["he"] < 2.5
    # Xavier halves the variance at each ReLU layer: He et al. 2015, section 2.2.
    assert ratios["xavier"] == pytest.approx(2**-4.5, rel=0.6)
    assert ratios["normal"] < 1e-9  # 100 units of 0.01: 0.07 a layer


@pytest.mark.parametrize("name", ["convnet", "resnet18_cifar"])
def test_every_kernel_of_a_network_is_seen_once(name):
    small = {"width": 4, "stages": (1, 1)} if name.startswith("resnet") else {"widths": (4, 8)}
    (_, rows), (variables, _, _) = look(name, "relu", "he", size=8, batch=4, **small)
    paths = [row.layer for row in rows]
    kernels = {
        "/".join(key.key for key in path[:-1])
        for path, _ in jax.tree_util.tree_flatten_with_path(variables["params"])[0]
        if path[-1].key == "kernel"
    }
    assert len(paths) == len(set(paths)) and set(paths) == kernels
    assert all(row.std > 0 for row in rows)
