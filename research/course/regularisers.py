"""Dropout, batch normalisation and softmax."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.course.config import WorkedExamplesConfig
from research.course.worked import Worked, largest_difference, step
from research.figures import course as figures
from research.models.mlp import MLP
from research.nn.normalisation import BatchNorm
from research.nn.regularisation import Dropout


def dropout(config: WorkedExamplesConfig) -> Worked:
    """Drops a fifth of the units: scaled in testing, or inverted, as here, in training."""
    keep = 0.8
    rng = np.random.default_rng(0)
    units = rng.uniform(0.5, 1.5, 8).astype(np.float32)
    weights = rng.normal(size=8).astype(np.float32)
    rate = 1 - keep

    def masked(draws: int) -> np.ndarray:
        many = jnp.broadcast_to(jnp.asarray(units), (draws, 8))
        return np.asarray(Dropout(rate).apply({}, many, True, rngs={"dropout": jax.random.key(0)}))

    inverted = masked(20_000)
    plain = inverted * keep  # zeros, and the others as they are
    evaluated = np.asarray(Dropout(rate).apply({}, jnp.asarray(units)[None], False))[0]
    biased = inverted @ weights - float(units @ weights) + 0.0
    after = np.maximum(biased, 0).mean()
    return Worked(
        [
            step("units", units),
            step(
                "dropped, as in 2014, and inverted: the others divided by 0.8",
                plain[0],
                inverted[0],
            ),
            step(
                "mean of 20,000 draws of w x",
                f"dropped {float((plain @ weights).mean()):.4f}, tested with all units "
                f"{float(units @ weights):.4f}, times 0.8 {keep * float(units @ weights):.4f}",
                f"inverted {float((inverted @ weights).mean()):.4f}: nothing to do in testing",
            ),
            step("1.212 x 0.8 = 0.9696; unscaled the output is 1 / 0.8 = 25 % too large"),
        ],
        {
            "scaled_output": (1.212 * keep, "must be 0.9696"),
            "growth": (1 / keep - 1, "of the unscaled test output; must be 0.25"),
            "kept_share": (float((inverted != 0).mean()), "must be 0.8 +- 0.01"),
            "kept_factor": (
                float((inverted[inverted[:, 0] != 0, 0] / units[0]).mean()),
                "must be 1.25",
            ),
            "test_difference": (
                largest_difference(evaluated, units),
                "inverted: nothing changes in testing; must be 0",
            ),
            "mean_difference": (
                abs(float((inverted @ weights).mean() - units @ weights)),
                "of a linear read-out, training against testing; must be below 0.02",
            ),
            "relu_gap_of_means": (
                float(after),
                "after a ReLU means differ (there 0 in testing); must be above 0.1",
            ),
        },
        lambda: {
            "dropout": figures.grids(
                {"units": units[None], "dropped": plain[:4], "inverted": inverted[:4]}, across=3
            )
        },
    )


def batch_norm(config: WorkedExamplesConfig) -> Worked:
    """Normalises a batch in training and in evaluation; follows gradients through ten layers."""
    rng = np.random.default_rng(0)
    batch = (rng.normal(size=(64, 3)) * [3.0, 1.0, 1e-3] + [5.0, -2.0, 0.0]).astype(np.float32)
    layer, batched = BatchNorm(), jnp.asarray(batch)
    fresh: Any = {
        "params": {"scale": jnp.ones(3), "bias": jnp.zeros(3)},
        "batch_stats": {"mean": jnp.zeros(3), "var": jnp.ones(3)},
    }
    out, moved = layer.apply(fresh, batched, True, mutable=["batch_stats"])
    trained = np.asarray(out)
    stats = moved["batch_stats"]
    evaluated = np.asarray(layer.apply({**fresh, "batch_stats": stats}, batched, False))
    learned = {"scale": jnp.full(3, 2.0), "bias": jnp.full(3, 0.5)}
    shifted = np.asarray(
        layer.apply({**fresh, "params": learned}, batched, True, mutable=["batch_stats"])[0]
    )
    variance = batch.var(0)

    def first_gradient(normalise: bool, deviation: float, depth: int) -> np.ndarray:
        """Computes the gradient's norm in each hidden layer's kernel."""
        model = MLP(10, hidden=(100,) * depth, normalise=normalise)
        images = jnp.asarray(rng.normal(size=(64, 1, 100, 1)), jnp.float32)
        shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
        draw = np.random.default_rng(1)
        fill = lambda path, leaf: jnp.asarray(
            draw.normal(size=leaf.shape) * deviation
            if leaf.ndim > 1
            else np.full(leaf.shape, 1.0 if path[-1].key in ("scale", "var") else 0.0),
            jnp.float32,
        )
        variables = jax.tree.map_with_path(fill, shapes)

        def loss(params: Any) -> Any:
            logits, _ = model.apply(
                {**variables, "params": params}, images, True, mutable=["batch_stats"]
            )
            labels = jnp.arange(64) % 10
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        gradient = jax.jit(jax.grad(loss))(variables["params"])
        return np.array([jnp.linalg.norm(gradient[f"hidden{i}"]["kernel"]) for i in range(depth)])

    plain, normed = first_gradient(False, 0.01, 10), first_gradient(True, 0.01, 10)
    deep = first_gradient(True, math.sqrt(2 / 100), 10)
    layers = np.arange(1, 11)
    return Worked(
        [
            step("three channels: mean and variance before", batch.mean(0), variance),
            step("after, in training", trained.mean(0), trained.var(0)),
            step("with scale 2 and shift 0.5, which are learned", shifted.mean(0), shifted.var(0)),
            step(
                "running averages after one batch, momentum 0.9, which evaluation uses",
                np.asarray(stats["mean"]),
                np.asarray(stats["var"]),
            ),
            step(
                "gradient of the first of ten layers, weights of deviation 0.01",
                f"without {plain[0]:.1e}, with {normed[0]:.1e}",
            ),
        ],
        {
            "mean_after": (float(np.abs(trained.mean(0)).max()), "must be below 1e-3"),
            "variance_after": (float(trained.var(0)[1]), "must be 1"),
            "small_variance_after": (
                float(trained.var(0)[2] / (variance[2] / (variance[2] + 1e-5))),
                "of v near 1e-6, over v / (v + eps); must be 1",
            ),
            "shifted_mean": (float(shifted.mean(0)[1]), "after scale and shift; must be 0.5"),
            "running_mean": (float(stats["mean"][0] / batch.mean(0)[0]), "share; must be 0.1"),
            "modes_differ": (largest_difference(trained, evaluated), "must be above 0.1"),
            "plain_gradient": (float(plain[0]), "must be below 1e-5"),
            "normed_gradient": (float(normed[0]), "must be above 1"),
            "growth_of_gradients": (
                float(deep[0] / deep[-1]),
                "first layer's over the tenth's: it does not guard against growth; above 1",
            ),
        },
        lambda: {
            "batch_norm": figures.curves(
                {
                    "gradient of ten layers, weights of deviation 0.01": {
                        "without": (layers, plain),
                        "with batch normalisation": (layers, normed),
                    }
                },
                ("layer", "norm"),
                logarithmic=True,
            )
        },
    )


def softmax(config: WorkedExamplesConfig) -> Worked:
    """Turns scores into probabilities; computes the loss before anything is learned."""
    scores = jnp.array([2.0, 1.0, -1.0])
    shares = np.asarray(jax.nn.softmax(scores))
    sizes = (2, 10, 1000)
    first = {
        n: float(optax.softmax_cross_entropy_with_integer_labels(jnp.zeros(n), jnp.asarray(1)))
        for n in sizes
    }
    cat = 0.1
    curve = np.linspace(0.02, 0.98, 97)
    return Worked(
        [
            step("scores, and their softmax", scores, shares),
            step("loss of equal scores: ln C", *(f"C={n:4}: {v:.4f}" for n, v in first.items())),
            step("dog 0, cat 1, an output of 0.1", f"{cat:.0%} cat, {1 - cat:.0%} dog"),
        ],
        {
            "probability_sum": (float(shares.sum()), "must be 1"),
            "loss_of_10": (first[10] - math.log(10), "less ln 10; must be 0"),
            "loss_of_1000": (first[1000] - math.log(1000), "less ln 1000; must be 0"),
            "cat": (cat, "must be 0.1"),
            "dog": (1 - cat, "must be 0.9"),
        },
        lambda: {
            "softmax": figures.curves(
                {
                    "losses of a cat, by the output": {
                        "cross-entropy": (curve, -np.log(curve)),
                        "squared error": (curve, (1 - curve) ** 2),
                    }
                },
                ("output", "loss"),
            )
        },
    )
