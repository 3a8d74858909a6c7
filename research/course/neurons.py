"""Neurons: XOR, activation functions, depth without them, and inputs that are never negative."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from research.course.config import WorkedExamplesConfig
from research.course.worked import Worked, largest_difference, step
from research.figures import course as figures
from research.models.mlp import MLP
from research.nn.activations import ACTIVATIONS
from research.training.optimizers import make

BITS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
TRUTH = np.array([0, 1, 1, 0])


def threshold(
    inputs: Float[np.ndarray, "row input"], weights: tuple[int | float, ...], bias: float
) -> Bool[np.ndarray, " row"]:
    """Computes a perceptron: whether the weighted sum is above 0 (Rosenblatt 1958)."""
    return inputs @ np.array(weights) + bias > 0


def fit(
    model: nn.Module, variables: Any, steps: int, rate: float
) -> tuple[Any, Float[Array, " step"]]:
    """Trains a network on XOR by Adam; returns its variables and the loss of each step."""
    optimizer = make("adam", optax.constant_schedule(rate))

    def loss(variables: Any) -> Array:
        logits = model.apply(variables, jnp.asarray(BITS)[:, None, :, None])
        return optax.softmax_cross_entropy_with_integer_labels(logits, TRUTH).mean()

    def advance(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], Array]:
        variables, state = carry
        value, gradient = jax.value_and_grad(loss)(variables)
        updates, state = optimizer.update(gradient, state, variables)
        return (optax.apply_updates(variables, updates), state), value

    run = jax.jit(lambda v: jax.lax.scan(advance, (v, optimizer.init(v)), length=steps))
    (variables, _), losses = run(variables)
    return variables, losses


def drawn(model: nn.Module, shape: tuple[int, ...], seed: int = 0) -> Any:
    """Draws a network's kernels with NumPy, of deviation 1; biases are 0."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
    rng = np.random.default_rng(seed)

    def one(leaf: Any) -> Array:
        values = rng.normal(size=leaf.shape) if leaf.ndim > 1 else np.zeros(leaf.shape)
        return jnp.asarray(values, jnp.float32)

    return jax.tree.map(one, shapes)


def xor(config: WorkedExamplesConfig) -> Worked:
    """Makes XOR of three threshold units; learns it; shows that one layer cannot."""
    nand, either = threshold(BITS, (-1, -1), 1.5), threshold(BITS, (1, 1), -0.5)
    both = np.stack([nand, either], 1).astype(np.float32)
    answer = threshold(both, (1, 1), -1.5)
    grid = np.linspace(-2, 2, 17)
    weights = np.stack(np.meshgrid(grid, grid, grid), -1).reshape(-1, 3)
    single = (BITS @ weights[:, :2].T + weights[:, 2] > 0).T == TRUTH
    a, b = BITS.T
    relu = np.maximum(a + b, 0) - 2 * np.maximum(a + b - 1, 0)
    learned: dict[str, float] = {}
    linear: dict[str, float] = {}
    losses: dict[str, Array] = {}
    for name, hidden, activation in (
        ("8 ReLU units", (8,), "relu"),
        ("8 linear units", (8,), ""),
    ):
        model = MLP(2, ACTIVATIONS[activation] if activation else lambda x: x, hidden=hidden)
        trained, losses[name] = fit(model, drawn(model, (1, 1, 2, 1)), 300, 0.05)
        right = (
            np.asarray(model.apply(trained, jnp.asarray(BITS)[:, None, :, None])).argmax(1) == TRUTH
        )
        (learned if activation else linear)[name] = float(right.mean())
    table = np.stack([*BITS.T, nand, either, answer], 1).astype(int)
    best_linear = float(losses["8 linear units"].min())
    return Worked(
        [
            step("a, b, NAND, OR, AND of these two = XOR", table),
            step(f"one threshold unit, {len(weights):,} tried: {int(single.sum(1).max())} of 4"),
            step("relu(a + b) - 2 relu(a + b - 1)", relu),
            step(
                "learned by Adam in 300 steps",
                f"8 ReLU units: loss {float(losses['8 ReLU units'][-1]):.4f}",
                f"8 units without activation: loss {best_linear:.4f} at best; ln 2 = 0.6931",
            ),
        ],
        {
            "xor_00": (float(answer[0]), "must be 0"),
            "xor_01": (float(answer[1]), "must be 1"),
            "xor_10": (float(answer[2]), "must be 1"),
            "xor_11": (float(answer[3]), "must be 0"),
            "one_unit_right": (float(single.sum(1).max()), "of 4 rows at best; must be 3"),
            "relu_difference": (largest_difference(relu, TRUTH), "must be 0"),
            "learned_accuracy": (learned["8 ReLU units"], "must be 1"),
            "linear_accuracy": (linear["8 linear units"], "must be at most 0.75"),
            "linear_loss": (best_linear, "must be ln 2 = 0.6931, not below"),
        },
        lambda: {
            "xor": figures.curves(
                {"loss of XOR": {n: (np.arange(300), np.asarray(v)) for n, v in losses.items()}},
                ("step", "cross-entropy"),
            )
        },
    )


def activations(config: WorkedExamplesConfig) -> Worked:
    """Draws activation functions and their slopes; counts saturated units."""
    names = ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu")
    x = np.linspace(-5, 5, 201).astype(np.float32)

    def slope(name: str, at: Any) -> Array:
        return jax.vmap(jax.grad(ACTIVATIONS[name]))(jnp.atleast_1d(jnp.asarray(at, jnp.float32)))

    def at(name: str, value: int | float) -> float:
        return float(ACTIVATIONS[name](jnp.float32(value)))

    units = np.random.default_rng(0).normal(size=2000)
    saturated = {
        scale: float((np.asarray(slope("tanh", scale * units)) < 0.1).mean())
        for scale in (1, 5, 25)
    }
    values = {n: (x, np.asarray(ACTIVATIONS[n](jnp.asarray(x)))) for n in names}
    slopes = {n: (x, np.asarray(slope(n, x))) for n in names}
    rows = [f"{n:11} {at(n, -100):9.3f} {at(n, -10):8.3f} {at(n, 10):8.3f}" for n in names]
    return Worked(
        [
            step("f(-100), f(-10), f(10)", *rows),
            step(
                "tanh: units whose slope is below 0.1, inputs of deviation 1 times",
                *(f"{scale:2}: {100 * share:.0f} %" for scale, share in saturated.items()),
            ),
        ],
        {
            "sigmoid_slope_0": (float(slope("sigmoid", 0.0)[0]), "must be 0.25"),
            "sigmoid_slope_10": (float(slope("sigmoid", 10.0)[0]), "must be 4.54e-5"),
            "leaky_relu_low": (at("leaky_relu", -100), "f(-100) goes down without end; must be -1"),
            "elu_low": (at("elu", -100), "f(-100) ends at -alpha; must be -1"),
            "elu_low_difference": (at("elu", -100) - at("elu", -10), "must be near 0"),
            "elu_slope": (float(slope("elu", -100.0)[0]), "at -100; must be 0"),
            "leaky_slope": (float(slope("leaky_relu", -100.0)[0]), "at -100; must be 0.01"),
            "tanh_negative": (at("tanh", -1), "negative inputs are used; must be -0.7616"),
            "saturated_1": (saturated[1], "share of units; must be below 0.2"),
            "saturated_25": (saturated[25], "inputs times 25; must be above 0.9"),
        },
        lambda: {
            "activations": figures.curves(
                {"functions": values, "slopes": slopes}, ("input", "value"), across=2
            )
        },
    )


def linear_depth(config: WorkedExamplesConfig) -> Worked:
    """Multiplies three layers without activations into one."""
    model = MLP(4, lambda x: x, hidden=(16, 8))
    variables = drawn(model, (1, 1, 6, 1))
    params: Mapping[str, Any] = variables["params"]
    one = params["hidden0"]["kernel"] @ params["hidden1"]["kernel"] @ params["fc"]["kernel"]
    inputs = np.random.default_rng(1).normal(size=(32, 6)).astype(np.float32)
    images = jnp.asarray(inputs)[:, None, :, None]
    deep = np.asarray(model.apply(variables, images))
    bent = np.asarray(model.clone(activation=nn.relu).apply(variables, images))
    product = inputs @ np.asarray(one)
    return Worked(
        [
            step("three layers, 6 to 16 to 8 to 4, as one matrix W1 W2 W3", np.asarray(one)),
            step("an input through the layers, and times the matrix", deep[0], product[0]),
            step("the same with ReLU between them", bent[0]),
        ],
        {
            "matrix_difference": (
                largest_difference(deep, product) / float(np.abs(deep).max()),
                "between layers and matrix, relative; must be below 1e-5",
            ),
            "relu_gap": (
                largest_difference(bent, product) / float(np.abs(deep).max()),
                "with ReLU no matrix will do; must be above 0.1",
            ),
        },
        lambda: {"linear_depth": figures.grids({"W1 W2 W3": np.asarray(one)})},
    )


def zigzag(config: WorkedExamplesConfig) -> Worked:
    """Descends to weights of opposite signs from inputs above 0, one example at a time."""
    rng = np.random.default_rng(0)
    positive = rng.uniform(0, 1, (4000, 2)).astype(np.float32)
    inputs = {"above 0": positive, "centred": positive - 0.5}
    wanted = np.array([1.0, -1.0], np.float32)
    start = np.array([-0.5, 0.5], np.float32)

    def of_example(weights: Array, x: Array) -> Array:
        return 0.5 * ((weights - wanted) @ x) ** 2

    each = jax.jit(jax.vmap(jax.grad(of_example), (None, 0)))
    share, walked = {}, {}
    for name, x in inputs.items():
        gradients = np.asarray(each(jnp.asarray(start), jnp.asarray(x)))
        for size in (1, 8, 64):
            batches = gradients[: len(x) // size * size].reshape(-1, size, 2).mean(1)
            share[name, size] = float((np.sign(batches[:, 0]) == np.sign(batches[:, 1])).mean())
        weights, path = start, [start]
        for one in x[:25]:
            weights = weights - 0.9 * one * ((weights - wanted) @ one)
            path.append(weights)
        walked[f"inputs {name}"] = np.stack(path)
    return Worked(
        [
            step(
                "share of steps in which both gradients have one sign",
                *(f"inputs {n}, batch {b:2}: {100 * s:5.1f} %" for (n, b), s in share.items()),
            ),
            step("all up or all down: not only down", walked["inputs above 0"][:6]),
        ],
        {
            "one_sign_1": (share["above 0", 1], "one example, inputs above 0; must be 1"),
            "one_sign_8": (share["above 0", 8], "batch of 8; must be below 1"),
            "one_sign_64": (share["above 0", 64], "batch of 64; must be below that of 8"),
            "one_sign_centred": (share["centred", 1], "centred inputs; must be 0.5 +- 0.05"),
        },
        lambda: {
            "zigzag": figures.paths(
                lambda x, y: (x - 1) ** 2 + (y + 1) ** 2, walked, across=2, end=(1.0, -1.0)
            )
        },
    )
