"""Optimisation of an image: its coordinates, its loss, the optimizer and what it must keep to.

Losses return a value for each image, and optimizers get the gradient of their sum.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from research.data.sources.examples import Arrays
from research.data.sources.source import Source
from research.errors import UserError
from research.experiment import (
    Batch,
    Data,
    Evaluation,
    Evaluator,
    Experiment,
    Losses,
    Measures,
    Network,
    Pictures,
    PyTree,
    Training,
    Variables,
)
from research.random import stream
from research.training import optimizers
from research.understanding import objectives, regularisers
from research.understanding.config import InputOptimizationConfig
from research.understanding.parameterisation import (
    Parameterisation,
    fourier,
    pixels,
    squashed,
)
from research.understanding.question import Question

# A coordinate of 1 is as far from the mean image as most pixels of photographs are.
SCALE = 64.0

# (images, steps done, which of the inputs they are of) -> a value for each
Objective = Callable[
    [Float[Array, "n height width channel"], Array, Int[Array, " n"]], Float[Array, " n"]
]


def coordinates(question: Question, height: int, width: int) -> Parameterisation:
    """Makes the parameterisation that the options ask for."""
    config, channels = question.config, len(question.mean)
    if config.parameterisation == "pixels":
        if not config.decorrelate:
            raise UserError("--decorrelate: is about --parameterisation=fourier; leave it out.")
        return pixels(jnp.asarray(question.mean), SCALE)
    return squashed(fourier(height, width), channels, config.decorrelate)


def start_images(question: Question, count: int, height: int, width: int) -> np.ndarray:
    """Makes the mean image, or noise on it."""
    start = np.broadcast_to(question.mean, (count, height, width, len(question.mean)))
    if question.config.start == "noise":
        draw = np.random.default_rng(question.config.seed).normal(size=start.shape)
        start = np.clip(start + 20.0 * draw, 0, 255)
    return start.astype(np.float32)


def step_rate(question: Question, default: float) -> optax.Schedule:
    """Returns --learning_rate, or the method's own."""
    return optax.constant_schedule(question.config.learning_rate or default)


def pixel_projections(question: Question, space: Parameterisation) -> list[regularisers.Projection]:
    """Returns what pixels are held to after each step, as the options ask."""
    config = question.config
    found = []
    if config.blur_sigma != 1.0 and not config.blur_every:
        raise UserError("--blur_sigma: there is no blur without --blur_every.")
    if config.clip_every != 1 and not clips_any(config):
        raise UserError("--clip_every: nothing is clipped without a share to clip.")
    if config.parameterisation == "pixels":
        if config.blur_every:
            found.append(regularisers.blur_every(config.blur_every, config.blur_sigma))
        clips = (
            (config.clip_norms, regularisers.clip_small_norms),
            (config.clip_gradients, regularisers.clip_small_gradients),
            (config.clip_contributions, regularisers.clip_small_contributions),
        )
        found += [
            regularisers.every(config.clip_every, clip(share)) for share, clip in clips if share
        ]
        found.append(regularisers.keep_between(space.low, space.high))
    elif config.blur_every or clips_any(config):
        raise UserError(
            "--blur_every, --clip_norms, --clip_gradients, --clip_contributions: act on pixels; "
            "add --parameterisation=pixels."
        )
    return found


def clips_any(config: InputOptimizationConfig) -> bool:
    """Returns whether pixels are set to 0 by some rule."""
    return bool(config.clip_norms or config.clip_gradients or config.clip_contributions)


def optimised(
    question: Question,
    *,
    images: UInt8[np.ndarray, "n height width channel"],
    params: Float[np.ndarray, "n ..."],
    loss: Callable[[Variables, Batch, Array, str | None], Losses],
    optimizer: optax.GradientTransformation,
    learning_rate: optax.Schedule,
    steps: int,
    predict: Callable[[Variables, Batch], PyTree],
    measure: Callable[[PyTree, Batch], Measures],
    protocol: Mapping[str, str],
    draw: Callable[[PyTree, Batch], Pictures],
    notes: Callable[[PyTree, Batch], list[str]] | None = None,
    state: Variables = MappingProxyType({}),
) -> Experiment:
    """Builds the experiment whose parameters are images; the network is frozen.

    Args:
      images: what batches hold: the inputs, or the start.
      params: the coordinates of the images at the start.
      state: what the loss keeps beside the step, as it is before the first one.
    """
    config = question.config

    def init(key: Array) -> Variables:
        return {
            "params": {"image": jnp.asarray(params)},
            "schedule": {"step": jnp.int32(0)},
            **jax.tree.map(jnp.asarray, dict(state)),
        }

    def data() -> Data:
        source = Source(Arrays({"image": images}), len(images))
        return Data(dataclasses.replace(source, seed=config.seed), {"inputs": source})

    training = Training(
        loss=loss,
        # The loop's loss is a mean over images; one image's steps must not depend on the others.
        optimizer=optax.chain(optax.scale(float(len(images))), optimizer),
        learning_rate=learning_rate,
        steps=steps,
    )
    evaluator = Evaluator(question.told(protocol), measure, draw=draw)
    return Experiment(
        network=Network(init),
        training=training,
        evaluation=Evaluation(predict, {config.method: evaluator}, notes=notes),
        data=data,
        facts={"method": config.method},
    )


def make_loss(
    objective: Objective,
    to_images: Callable[[Array], Any],
    config: InputOptimizationConfig,
    parts: Callable[[Array, Array], Mapping[str, Array]] | None = None,
) -> Any:
    """Makes the contract's loss of an objective, to be minimised.

    Args:
      parts: (images, rows) -> what the objective is made of, for the log.
    """

    def loss(variables: Variables, batch: Batch, key: Array, axis: str | None) -> Any:
        images = to_images(variables["params"]["image"])
        step = variables["schedule"]["step"]
        pixels = config.jitter if config.jitter >= 0 else min(images.shape[1:3]) // 28
        moved = regularisers.jitter(images, stream(key, "jitter"), pixels)
        values = objective(moved, step, jnp.arange(len(moved)))
        if config.total_variation:
            values += config.total_variation * objectives.total_variation(images / 255.0)
        state = {"schedule": {"step": step + 1}}
        rows = jnp.arange(len(images))
        measures = {} if parts is None else parts(images, rows)
        return values[batch["index"]], state, {k: v[batch["index"]] for k, v in measures.items()}

    return loss


def gradient_descent(
    config: InputOptimizationConfig,
    space: Parameterisation,
    rate: optax.Schedule,
    objective: Objective,
    l2: float,
    projections: Sequence[regularisers.Projection],
) -> optax.GradientTransformation:
    """Makes Adam, or L-BFGS with a line search, with the regularisers."""
    decay = [regularisers.l2_penalty(l2)] if l2 else []
    if config.solver == "lbfgs" and config.learning_rate:
        raise UserError("--learning_rate: L-BFGS searches for its own step; leave it out.")
    if config.solver == "adam":
        steps = optimizers.make("adam", rate)
        return regularisers.projected(optax.chain(*decay, steps), projections)

    def value(p: Array, rows: Array) -> Array:
        images = space.to_images(p)
        values = objective(images, jnp.int32(0), rows)
        if config.total_variation:
            values += config.total_variation * objectives.total_variation(images / 255.0)
        return values + l2 * (p**2).sum(tuple(range(1, p.ndim)))

    return regularisers.projected(optax.chain(*decay, lbfgs(value)), projections)


def lbfgs(value: Callable[[Array, Array], Array]) -> optax.GradientTransformation:
    """Makes optax's L-BFGS work on each image by itself, along a direction of its own.

    Args:
      value: coordinates of images, and which of the inputs they are of -> a value for each, of
        whose sum the gradients are.
    """
    inner = optax.lbfgs()

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def one(gradient: Any, state: Any, image: Any, row: Array) -> tuple[Any, Any]:
            def of_image(image: Any) -> Array:
                return value(image["image"][None], row[None])[0]

            return inner.update(
                gradient, state, image, value=of_image(image), grad=gradient, value_fn=of_image
            )

        return jax.vmap(one)(gradients, state, params, jnp.arange(len(params["image"])))

    return optax.GradientTransformation(jax.vmap(inner.init), update)
