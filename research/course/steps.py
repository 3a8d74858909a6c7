"""Steps of optimizers: rates with and without noise, paths in a valley, adaptive steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from research.course.config import WorkedExamplesConfig
from research.course.worked import Worked, step
from research.figures import course as figures
from research.training.optimizers import make


def descend(
    optimizer: optax.GradientTransformation, gradient: Any, start: Array, steps: int
) -> Float[np.ndarray, "place *shape"]:
    """Returns the places of `steps` steps from `start`; gradient: (place, step) -> gradient."""

    def advance(carry: tuple[Any, Any], number: Array) -> tuple[tuple[Any, Any], Any]:
        place, state = carry
        updates, state = optimizer.update(gradient(place, number), state, place)
        place = optax.apply_updates(place, updates)
        return (place, state), place

    run = jax.jit(lambda x: jax.lax.scan(advance, (x, optimizer.init(x)), jnp.arange(steps))[1])
    return np.concatenate([np.asarray(start)[None], np.asarray(run(start))])


def rates(config: WorkedExamplesConfig) -> Worked:
    """Descends a parabola under noise, from 10, many times: large, small, falling rates."""
    runs, steps = 400, 1000
    schedules: dict[str, Any] = {
        "0.5": optax.constant_schedule(0.5),
        "0.05": optax.constant_schedule(0.05),
        "0.5 / (1 + t / 20)": lambda t: 0.5 / (1 + t / 20),
    }
    noise = jnp.asarray(np.random.default_rng(0).normal(size=(steps, runs)), jnp.float32)
    start = jnp.full(runs, 10.0)
    rms = {}
    for name, schedule in schedules.items():
        path = descend(make("sgd", schedule), lambda x, t: x + noise[t], start, steps)
        rms[name] = np.sqrt((path**2).mean(1))
    free = descend(make("sgd", schedules["0.5"]), lambda x, t: x, jnp.full(1, 10.0), 100)[:, 0]
    far = descend(make("sgd", optax.constant_schedule(2.1)), lambda x, t: x, jnp.full(1, 10.0), 100)
    end = {name: float(np.sqrt((v[-300:] ** 2).mean())) for name, v in rms.items()}
    last = {name: float(v[-1]) for name, v in rms.items()}
    fast = {name: int((v < 1).argmax()) for name, v in rms.items()}
    one = float(free[1])  # after the start
    x = np.arange(steps + 1)
    return Worked(
        [
            step("one step of rate 0.5 on w^2 / 2 from 10", f"10 - 0.5 x 10 = {one:g}"),
            step(
                "with noise of deviation 1 on each gradient",
                *(f"{n:20} below 1 after {fast[n]:3} steps, at the end {last[n]:.3f}" for n in rms),
            ),
            step("without noise the large rate arrives", f"after 100 steps {abs(free[-1]):.1e}"),
            step("above 2 / curvature it diverges", f"rate 2.1: {abs(far[-1, 0]):.1e}"),
        ],
        {
            "one_step": (one, "w - lr g; must be 5"),
            "end_large": (end["0.5"], "sqrt(lr / (2 - lr)); must be 0.577 +- 0.03"),
            "end_small": (end["0.05"], "must be 0.160 +- 0.02"),
            "end_falling": (last["0.5 / (1 + t / 20)"], "must be 0.072 +- 0.01"),
            "steps_large": (float(fast["0.5"]), "to an rms below 1; must be 4"),
            "steps_small": (float(fast["0.05"]), "must be 46 +- 3"),
            "end_without_noise": (float(abs(free[-1])), "of rate 0.5; must be below 1e-20"),
            "diverged": (float(abs(far[-1, 0])), "at rate 2.1 after 100 steps; must be above 1e4"),
        },
        lambda: {
            "learning_rate": figures.curves(
                {
                    "distance from the minimum, gradients with noise": {
                        n: (x, v) for n, v in rms.items()
                    }
                },
                ("step", "rms"),
                logarithmic=True,
            )
        },
    )


def valley(config: WorkedExamplesConfig) -> Worked:
    """Descends a valley of curvatures 0.01 and 1 with each optimizer; counts swings across."""
    curvature = jnp.array([0.01, 1.0])
    start = jnp.array([-10.0, 1.0])
    gradient = lambda place, number: curvature * place

    def walk(name: str, rate: float, momentum: float = 0.9, steps: int = 100) -> np.ndarray:
        optimizer = make(name, optax.constant_schedule(rate), momentum=momentum)
        return descend(optimizer, gradient, start, steps)

    def swings(path: np.ndarray) -> float:
        return float((np.sign(path[1:, 1]) != np.sign(path[:-1, 1])).sum())

    # v = 0.9 v + 0.1 g with rate lr is v = 0.9 v + g with a tenth of it.
    flips = {
        "plain, 1.9": walk("sgd", 1.9),
        "momentum, 1.9": walk("momentum", 1.9),
        "averaged momentum, 1.9": walk("momentum", 0.19),
        "plain, 0.5": walk("sgd", 0.5),
        "momentum, 0.5": walk("momentum", 0.5),
    }
    walked = {
        "SGD, rate 1.9": walk("sgd", 1.9, steps=60),
        "momentum 0.9, rate 0.19": walk("momentum", 0.19, steps=60),
        "AdaGrad, rate 1": walk("adagrad", 1.0, steps=60),
        "RMSProp, rate 0.2": walk("rmsprop", 0.2, steps=60),
        "Adam, rate 0.5": walk("adam", 0.5, steps=60),
    }
    ends = {name: float(np.abs(path[-1]).max()) for name, path in walked.items()}
    moved = {name: float(np.abs(np.diff(path[:, 0])).mean()) for name, path in flips.items()}
    x = np.arange(60)
    sizes = {n: (x, np.linalg.norm(np.diff(p, axis=0), axis=1)) for n, p in walked.items()}
    return Worked(
        [
            step(
                "sign flips across the valley in 100 steps",
                *(f"{name:24} {swings(path):3.0f}" for name, path in flips.items()),
            ),
            step("distance left after 60 steps", *(f"{n:26} {e:.3f}" for n, e in ends.items())),
        ],
        {
            "flips_plain": (swings(flips["plain, 1.9"]), "must be 100"),
            "flips_momentum": (swings(flips["momentum, 1.9"]), "v = 0.9 v + g; must be 50 +- 2"),
            "flips_averaged": (
                swings(flips["averaged momentum, 1.9"]),
                "v = 0.9 v + 0.1 g; must be 14 +- 2",
            ),
            "flips_plain_half": (swings(flips["plain, 0.5"]), "at rate 0.5; must be 0"),
            "flips_momentum_half": (swings(flips["momentum, 0.5"]), "must be 24 +- 2"),
            "progress_ratio": (
                moved["averaged momentum, 1.9"] / moved["plain, 1.9"],
                "along the valley, averaged momentum over plain, the same lr; near 1",
            ),
        },
        lambda: {
            "valley": figures.paths(lambda a, b: 0.01 * a**2 + b**2, walked),
            "step_sizes": figures.curves({"length of a step": sizes}, ("step", "length"), True),
        },
    )


def adaptive_steps(config: WorkedExamplesConfig) -> Worked:
    """Measures the steps of AdaGrad, RMSProp and Adam under 1000 equal gradients."""
    one = lambda place, number: jnp.ones_like(place)
    sizes = {
        name: -np.diff(
            descend(make(name, optax.constant_schedule(1.0)), one, jnp.zeros(1), 1000)[:, 0]
        )
        for name in ("adagrad", "rmsprop", "adam")
    }
    adagrad, rmsprop = sizes["adagrad"], sizes["rmsprop"]

    def after(past: float) -> float:
        """Returns 10 after a step at rate 0.1, gradient 4, whose squares then sum to `past`."""
        optimizer = make("adagrad", optax.constant_schedule(0.1))
        place = jnp.array([10.0])
        gradients = [jnp.array([np.sqrt(past - 16.0)]), jnp.array([4.0])]
        state = optimizer.init(place)
        for gradient in gradients:
            updates, state = optimizer.update(gradient, state, place)
        return float((place + updates)[0])

    frequent, rare = after(64.0), after(16.0)
    x = np.arange(1, 1001)
    return Worked(
        [
            step(
                "w = 10, gradient 4, rate 0.1, so lr g = 0.4",
                f"squares sum to 64: 10 - 0.4 / 8 = {frequent:.4f}",
                f"squares sum to 16: 10 - 0.4 / 4 = {rare:.4f}, 0.1 less and not 1",
            ),
            step(
                "steps under equal gradients, in rates",
                *(
                    f"{n:8} first {v[0]:.3f}, last {v[-1]:.4f}, in all {v.sum():.1f}"
                    for n, v in sizes.items()
                ),
            ),
        ],
        {
            "frequent_weight": (frequent, "sum 64; must be 9.95"),
            "rare_weight": (rare, "sum 16; must be 9.9"),
            "adagrad_last": (float(adagrad[-1]), "1 / sqrt(1000); must be 0.0316"),
            "adagrad_total": (float(adagrad.sum()), "never stops; must be 61.8"),
            "rmsprop_first": (float(rmsprop[0]), "must be 3.162"),
            "rmsprop_last": (float(rmsprop[-1]), "must be 1"),
            "adagrad_power": (
                float(np.log(adagrad[999] / adagrad[99]) / np.log(10)),
                "falls as t^-0.5; must be -0.5",
            ),
        },
        lambda: {
            "adaptive_steps": figures.curves(
                {"length of a step": {n: (x, v) for n, v in sizes.items()}},
                ("step", "in rates"),
                True,
            )
        },
    )
