"""First weights: zeros, and signals through ten layers."""

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
from research.nn.activations import ACTIVATIONS
from research.nn.initialisers import INITIALISERS, normal
from research.training.optimizers import make


def zero_start(config: WorkedExamplesConfig) -> Worked:
    """Trains two hidden units from equal weights, and from zeros."""
    inputs = np.array([[0.5, -1.0, 2.0]], np.float32)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(16, 1, 3, 1)), jnp.float32)
    wanted = (images.sum((1, 2, 3)) > 0).astype(jnp.int32)

    def trained(activation: str, start: float, steps: int) -> tuple[Any, Any]:
        model = MLP(2, ACTIVATIONS[activation], hidden=(2,))
        shapes = jax.eval_shape(model.init, jax.random.key(0), images)
        fill = lambda leaf: jnp.full(leaf.shape, start if leaf.ndim > 1 else 0.0)
        first = jax.tree.map(fill, shapes)
        # Columns of the last layer differ, so that there is something to learn.
        first["params"]["fc"]["kernel"] = first["params"]["fc"]["kernel"].at[:, 1].multiply(0.5)
        optimizer = make("sgd", optax.constant_schedule(0.5))

        def loss(variables: Any) -> Any:
            logits = model.apply(variables, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, wanted).mean()

        def advance(carry: Any, _: None) -> Any:
            gradient = jax.grad(loss)(carry[0])
            updates, state = optimizer.update(gradient, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        run = jax.jit(lambda v: jax.lax.scan(advance, (v, optimizer.init(v)), length=steps)[0][0])
        return first["params"], run(first)["params"]

    rows, apart, moved = [], {}, {}
    for activation, start in (("tanh", 0.5), ("relu", 0.0), ("tanh", 0.0), ("sigmoid", 0.0)):
        before, after = trained(activation, start, 100)
        hidden = np.asarray(after["hidden0"]["kernel"])
        name = f"{activation} from {start:g}"
        apart[name] = float(np.abs(hidden[:, 0] - hidden[:, 1]).max())
        moved[name] = max(
            float(jnp.abs(after[k]["kernel"] - before[k]["kernel"]).max())
            for k in ("hidden0", "fc")
        )
        rows.append(f"{name:16} units differ by {apart[name]:.1e}, weights moved {moved[name]:.4f}")
    prediction, truth = 3.0, 4.0  # of a bias alone: all weights are 0
    value = float(inputs[0] @ np.zeros(3, np.float32)) + prediction
    return Worked(
        [
            step("all weights 0, a bias of 3, truth 4", f"prediction {value:g}, loss |4 - 3| = 1"),
            step("two hidden units that start alike, 100 steps", *rows),
        ],
        {
            "first_loss": (abs(truth - value), "absolute or squared; must be 1"),
            "units_apart": (max(apart.values()), "of any start; must be below 1e-5"),
            "constant_moved": (moved["tanh from 0.5"], "weights learn, alike; must be above 0.01"),
            "relu_moved": (moved["relu from 0"], "no weight ever moves; must be 0"),
            "tanh_moved": (moved["tanh from 0"], "no weight ever moves; must be 0"),
            "sigmoid_moved": (moved["sigmoid from 0"], "these move, alike; must be above 0"),
        },
        lambda: {"zero_start": figures.bars({"weights moved by, 100 steps": moved})},
    )


def initialisation(config: WorkedExamplesConfig) -> Worked:
    """Sends signals through ten layers of 500 units, from several first weights."""
    width, depth = 500, 10
    inputs = np.random.default_rng(0).normal(size=(200, width)).astype(np.float32)
    kernels = {
        "0.01, linear": (normal(lambda shape: 0.01, truncated=False), "linear"),
        "0.01, ReLU": (INITIALISERS["normal"], "relu"),
        "1/n, ReLU": (INITIALISERS["lecun"], "relu"),
        "2/(in+out), ReLU": (INITIALISERS["xavier"], "relu"),
        "2/n, ReLU": (INITIALISERS["he"], "relu"),
        "N(0, 1), tanh": (normal(lambda shape: 1.0, truncated=False), "tanh"),
    }

    def deviations(initialise: Any, activation: str) -> Any:
        act = ACTIVATIONS.get(activation, lambda x: x)

        def layer(x: Any, key: Any) -> Any:
            x = act(x @ initialise(key, (width, width)))
            return x, (x.std(), (jnp.abs(x) > 0.99).mean())

        return jax.lax.scan(layer, inputs, jax.random.split(jax.random.key(0), depth))[1]

    run = jax.jit(lambda: {name: deviations(*how) for name, how in kernels.items()})()
    spread = {name: np.asarray(values) for name, (values, _) in run.items()}
    saturated = float(np.asarray(run["N(0, 1), tanh"][1]).mean())
    drawn = {
        n: float(INITIALISERS[n](jax.random.key(1), (width, 10 if n == "xavier" else width)).std())
        for n in ("lecun", "he", "xavier")
    }
    linear = spread["0.01, linear"]
    layers = np.arange(1, depth + 1)
    return Worked(
        [
            step(
                f"deviation after layers 1, 5 and 10 of {width} units",
                *(f"{n:18} {v[0]:9.2e} {v[4]:9.2e} {v[9]:9.2e}" for n, v in spread.items()),
            ),
            step(
                "deviation of first weights, fan-in 500",
                f"1/n {drawn['lecun']:.4f}, 2/n {drawn['he']:.4f}, "
                f"2/(in + out) of 500 to 10 {drawn['xavier']:.4f}",
            ),
            step(f"N(0, 1) and tanh: {100 * saturated:.0f} % of the values are beyond 0.99"),
        ],
        {
            "linear_factor": (float((linear[9] / linear[0]) ** (1 / 9)), "a layer; must be 0.2236"),
            "linear_expected": (0.01 * math.sqrt(width), "std sqrt(fan-in), the same"),
            "linear_end": (float(linear[9]), "after ten layers; must be 3.1e-7, within 10 %"),
            "he_least": (float(spread["2/n, ReLU"].min()), "of ten layers; must be above 0.7"),
            "he_most": (float(spread["2/n, ReLU"].max()), "must be below 1.6"),
            "lecun_end": (float(spread["1/n, ReLU"][9]), "must be 0.02 to 0.08"),
            "lecun_deviation": (drawn["lecun"], "sqrt(1/500); must be 0.0447"),
            "he_deviation": (drawn["he"], "sqrt(2/500); must be 0.0632"),
            "xavier_deviation": (drawn["xavier"], "sqrt(2/510) of 500 to 10; must be 0.0626"),
            "unit_saturated": (saturated, "share of tanh values beyond 0.99; must be above 0.8"),
        },
        lambda: {
            "initialisation": figures.curves(
                {"ten layers of 500 units": {n: (layers, v) for n, v in spread.items()}},
                ("layer", "deviation"),
                logarithmic=True,
            )
        },
    )
