"""Gradients by hand and by jax.grad: convolutions, pooling, ReLU's three rules."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import signal

from research.course.config import WorkedExamplesConfig
from research.course.convolution import slide
from research.course.pooling import M5, P4
from research.course.worked import Worked, largest_difference, step
from research.figures import course as figures
from research.nn.pooling import average_pool, max_pool
from research.understanding.relu_rules import with_rule

X = np.arange(1, 10, dtype=np.float32).reshape(3, 3)
K = np.array([[1, 2], [3, 4]], np.float32)


def convolution_backward(config: WorkedExamplesConfig) -> Worked:
    """Computes a kernel's and an image's gradient as correlations, and by jax.grad."""

    def loss(image: Any, kernel: Any, error: np.ndarray) -> Any:
        return (slide(image, kernel) * error).sum()

    forward = np.asarray(slide(X, K))
    errors = {"ones": np.ones((2, 2), np.float32), "second": np.array([[1, 0], [0, 2]], np.float32)}
    steps = [
        step("image X and kernel K", X, "", K),
        step("forward: the kernel slides as it is; 1 + 4 + 12 + 20 = 37", forward),
    ]
    by_hand, by_grad = {}, {}
    for name, error in errors.items():
        of_image, of_kernel = jax.grad(loss, argnums=(0, 1))(jnp.asarray(X), jnp.asarray(K), error)
        kernel = np.asarray(slide(X, error))  # X correlated with the error, not rotated
        image = np.asarray(slide(error, K[::-1, ::-1], padding=1))  # full, with K rotated
        by_hand[name], by_grad[name] = (
            (kernel, image),
            (np.asarray(of_kernel), np.asarray(of_image)),
        )
        steps += [
            step(f"error at the map ({name})", error),
            step("dK: X correlated with it", kernel),
            step("dX: it, padded, correlated with K rotated by 180 degrees", image),
        ]
    error = errors["second"]
    rotated = np.asarray(slide(X, error[::-1, ::-1]))
    steps.append(step("wrong: X correlated with the rotated error", rotated))
    w11 = float(sum(error[i, j] * X[i, j] for i in range(2) for j in range(2)))
    updated = K - 0.01 * by_hand["second"][0]
    both = [by_hand, by_grad]
    gaps = [
        largest_difference(both[0][name][i], both[1][name][i]) for name in errors for i in (0, 1)
    ]
    return Worked(
        steps,
        {
            "map_first": (float(forward[0, 0]), "must be 37"),
            "map_last": (float(forward[1, 1]), "must be 77"),
            "ones_kernel_last": (float(by_hand["ones"][0][1, 1]), "dK[1, 1]; must be 28"),
            "ones_image_middle": (float(by_hand["ones"][1][1, 1]), "dX[1, 1]; must be 10"),
            "kernel_first": (float(by_hand["second"][0][0, 0]), "dK[0, 0]; must be 11"),
            "kernel_last": (float(by_hand["second"][0][1, 1]), "dK[1, 1]; must be 23"),
            "image_middle": (float(by_hand["second"][1][1, 1]), "dX[1, 1]; must be 6"),
            "wrongly_rotated_first": (float(rotated[0, 0]), "not dK; must be 7"),
            "gradient_difference": (max(gaps), "between hand and jax.grad; must be 0"),
            "chain_rule_sum": (w11, "sum of dL/ds_ij x_ij, all four places of w11; must be 11"),
            "true_convolution_difference": (
                largest_difference(by_hand["second"][1], signal.convolve2d(error, K)),
                "dX against scipy's full convolution; must be 0",
            ),
            "correlate_difference": (
                largest_difference(forward, signal.correlate2d(X, K, mode="valid")),
                "forward against scipy's correlate2d; must be 0",
            ),
            "loss_change": (
                float(loss(X, updated, error) - loss(X, K, error)),
                "after one step of the kernel at rate 0.01; must be below 0",
            ),
        },
        lambda: {
            "convolution_backward": figures.grids(
                {
                    "X": X,
                    "K": K,
                    "map": forward,
                    "error": error,
                    "dK": by_hand["second"][0],
                    "dX": by_hand["second"][1],
                    "wrong: error rotated": rotated,
                }
            )
        },
    )


def pooling(config: WorkedExamplesConfig) -> Worked:
    """Sends a gradient of ones back through max and average pooling."""

    def back(pool: Any, image: np.ndarray, size: int, stride: int) -> np.ndarray:
        total = lambda x: pool(x[None, :, :, None], size, stride).sum()
        return np.asarray(jax.grad(total)(jnp.asarray(image)))

    routed, spread = back(max_pool, M5, 3, 1), back(average_pool, P4, 2, 2)
    return Worked(
        [
            step("5x5, max over 3x3, stride 1", M5),
            step("each window's gradient goes to its first maximum", routed),
            step("4x4, average over 2x2: every cell gets a quarter", spread),
        ],
        {
            "routed_to_nine": (float(routed[1, 1]), "at (1, 1), 4 windows' maximum; must be 4"),
            "routed_first_tie": (float(routed[1, 4]), "at (1, 4), first of a tie; must be 2"),
            "routed_second_tie": (float(routed[3, 2]), "at (3, 2), second of it; must be 0"),
            "routed_to_corner": (float(routed[4, 4]), "must be 1"),
            "routed_cells": (float((routed != 0).sum()), "that get anything; must be 5"),
            "routed_sum": (float(routed.sum()), "one for each window; must be 9"),
            "spread_share": (float(np.ptp(spread) + spread[0, 0]), "must be 0.25 everywhere"),
        },
        lambda: {
            "pooling_backward": figures.grids(
                {"5x5": M5, "gradient of max": routed, "4x4": P4, "gradient of average": spread}
            )
        },
    )


def relu_rules(config: WorkedExamplesConfig) -> Worked:
    """Sends a gradient through a ReLU by three rules."""
    before = jnp.array([-1.0, 2.0, 2.0])
    above = jnp.array([3.0, -4.0, 5.0])
    sent = {
        rule: np.asarray(jax.vjp(with_rule(jax.nn.relu, rule), before)[1](above)[0])
        for rule in ("plain", "deconvnet", "guided")
    }
    other = jnp.array([1.0, -2.0, 2.0])  # another image's values: another mask
    wrong = np.asarray(jax.vjp(with_rule(jax.nn.relu, "plain"), other)[1](above)[0])
    return Worked(
        [
            step("values before the ReLU, and the gradient from above", before, above),
            *(step(f"{rule} gradient", value) for rule, value in sent.items()),
            step("plain gradient, but with the mask of another image: wrong", wrong),
        ],
        {
            **{
                f"{rule}_{i}": (float(value[i]), f"{rule} gradient, unit {i}")
                for rule, value in sent.items()
                for i in range(3)
            },
            "wrong_mask_difference": (
                largest_difference(wrong, sent["plain"]),
                "a backward pass needs the forward pass of its image; must be above 0",
            ),
        },
        lambda: {
            "relu_rules": figures.grids(
                {"before": np.asarray(before)[None], "from above": np.asarray(above)[None]}
                | {rule: value[None] for rule, value in sent.items()},
                across=5,
            )
        },
    )


def saturated_saliency(config: WorkedExamplesConfig) -> Worked:
    """Takes the gradient of 1 - relu(1 - x), which rose from 0 to 1 and then stays."""
    function = lambda x: 1 - jax.nn.relu(1 - x)
    slope = jax.grad(function)
    along = np.linspace(0, 2, 2001)[:-1] + 0.0005
    gradients = np.asarray(jax.vmap(slope)(jnp.asarray(along)))
    integrated = float(2 * gradients.mean())
    difference = float((function(2.001) - function(1.999)) / 0.002)
    line = np.linspace(0, 2, 100)
    return Worked(
        [
            step(
                "f(x) = 1 - relu(1 - x) at x = 2",
                f"f(2) - f(0) = {float(function(2.0) - function(0.0)):g}, gradient "
                f"{float(slope(2.0)):g}, gradients along the way times the way {integrated:.4f}",
            )
        ],
        {
            "gradient_at_two": (float(slope(2.0)), "must be 0"),
            "finite_difference": (difference, "agrees with the gradient; must be 0"),
            "rise": (float(function(2.0) - function(0.0)), "of f from 0 to 2; must be 1"),
            "integrated": (integrated, "integrated gradients; must be 1"),
        },
        lambda: {
            "saturated_saliency": figures.curves(
                {
                    "f rose, its gradient is 0": {
                        "f": (line, np.asarray(function(jnp.asarray(line)))),
                        "gradient": (along, gradients),
                    }
                },
                ("x", "value"),
            )
        },
    )


def regularised_ascent(config: WorkedExamplesConfig) -> Worked:
    """Ascends w I - lambda |I|^2 from zeros: the optimum is w / (2 lambda)."""
    weights = jnp.array([3.0, 4.0])

    def ascend(strength: float, squared: bool) -> np.ndarray:
        def objective(image: Any) -> Any:
            size = (image**2).sum()
            return weights @ image - strength * (size if squared else jnp.sqrt(size + 1e-12))

        climb = jax.grad(objective)
        image = jnp.zeros(2)
        path = [image]
        for _ in range(60):
            image = image + 0.1 * climb(image)
            path.append(image)
        return np.asarray(jnp.stack(path))

    runs = {strength: ascend(strength, True) for strength in (0.5, 1.0, 2.0)}
    norms = {strength: float(np.linalg.norm(path[-1])) for strength, path in runs.items()}
    free = ascend(1.0, False)
    lengths = {
        f"lambda {strength:g}": (np.arange(61), np.linalg.norm(path, axis=1))
        for strength, path in runs.items()
    } | {"unsquared, lambda 1": (np.arange(61), np.linalg.norm(free, axis=1))}
    return Worked(
        [
            step(
                "score w I less lambda |I|^2, w = (3, 4)",
                *(
                    f"lambda {s:g}: I = {np.asarray(p[-1]).round(3)}, norm {norms[s]:.3f}"
                    for s, p in runs.items()
                ),
            ),
            step("less lambda |I|, unsquared: it never ends", free[[0, 20, 40, 60]]),
        ],
        {
            "norm_ratio": (norms[0.5] / norms[1.0], "twice the lambda; must be 2"),
            "optimum_difference": (
                largest_difference(runs[1.0][-1], np.asarray(weights) / 2),
                "from w / (2 lambda); must be below 1e-4",
            ),
            "unsquared_growth": (
                float(np.linalg.norm(free[60]) / np.linalg.norm(free[30])),
                "of the norm from step 30 to 60 without the square; must be above 1.9",
            ),
        },
        lambda: {"regularised_ascent": figures.curves({"norm": lengths}, ("step", "|I|"))},
    )
