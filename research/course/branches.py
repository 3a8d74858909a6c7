"""Side branches: predictions from the middle of a network, which add to the loss."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.course.config import WorkedExamplesConfig
from research.course.worked import Worked, step
from research.figures import course as figures
from research.models.mlp import MLP

WEIGHT = 0.3  # of the branch's loss: Szegedy et al. 2014, section 5


def side_branches(config: WorkedExamplesConfig) -> Worked:
    """Takes the first layer's gradient in a deep network, with and without a branch."""
    depth, middle, width = 8, 3, 32
    model = MLP(10, hidden=(width,) * depth)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(64, 1, width, 1)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 10, 64))
    branch = jnp.asarray(rng.normal(size=(width, 10)) / math.sqrt(width), jnp.float32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    draws = [
        jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) for leaf in jax.tree.leaves(shapes)
    ]

    def start(gain: float) -> Any:
        """Draws weights of deviation sqrt(gain / fan-in): 2 keeps signals, less lets them fade."""
        scaled = [
            d * math.sqrt(gain / leaf.shape[0]) if leaf.ndim > 1 else 0.0 * d
            for d, leaf in zip(draws, jax.tree.leaves(shapes), strict=True)
        ]
        return jax.tree.unflatten(jax.tree.structure(shapes), scaled)

    def loss(variables: Any, weight: Any) -> Any:
        maps: Any = model.apply(variables, images, features=True)
        logits: Any = model.apply(variables, images)
        side = maps[f"hidden{middle}"][:, 0, 0] @ branch
        cost = optax.softmax_cross_entropy_with_integer_labels
        return cost(logits, labels).mean() + weight * cost(side, labels).mean()

    gradient = jax.jit(jax.grad(loss))
    norms = {}
    for name, gain in (("signals kept", 2.0), ("signals fade", 0.5)):
        for branched, weight in (("alone", 0.0), ("with a branch", WEIGHT)):
            found = gradient(start(gain), weight)["params"]["hidden0"]["kernel"]
            norms[f"{name}, {branched}"] = float(jnp.linalg.norm(found))
    kept = norms["signals kept, with a branch"] / norms["signals kept, alone"]
    faded = norms["signals fade, with a branch"] / norms["signals fade, alone"]
    return Worked(
        [
            step(
                f"gradient of the first of {depth} layers, branch after layer {middle + 1}",
                *(f"{name:28} {value:.2e}" for name, value in norms.items()),
            )
        ],
        {
            "branch_gain": (kept, "first layer's gradient, with over without; must be above 1"),
            "faded_branch_gain": (faded, "in a network whose signals fade; must be above 5"),
        },
        lambda: {"side_branches": figures.bars({"first layer's gradient": norms})},
    )
