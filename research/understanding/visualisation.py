"""Visualisation of a unit: the image that it responds to most, by gradient ascent."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from research.errors import UserError
from research.experiment import Experiment
from research.understanding.before_after import PROTOCOL, compared, pictures, says
from research.understanding.network import layers_of
from research.understanding.optimisation import (
    SCALE,
    coordinates,
    gradient_descent,
    make_loss,
    optimised,
    pixel_projections,
    start_images,
    step_rate,
)
from research.understanding.question import Question, as_pixels


def visualise(question: Question) -> Experiment:
    """Makes an image of a class or any unit: ascent on the score, not on the probability.

    A probability also rises when other classes fall, so pictures of it show less of the class.
    """
    config = question.config
    names = question.network.class_names
    target = question.target("goose" if "goose" in names else "0" if names else "")
    given = len(question.images) > 0
    if given and config.start in ("zeros", "noise"):
        raise UserError(f"--inputs: has no effect with --start={config.start}; leave one out.")
    if given or config.start == "input":
        question.needs_inputs()
        before = question.images.astype(np.float32)
    else:
        before = start_images(question, 1, *question.network.image_shape[:2])
    space = coordinates(question, *before.shape[1:3])

    def objective(images: Array, step: Array, rows: Array) -> Array:
        return -target.value(layers_of(question.network, images))

    def extra(old: Array, new: Array) -> Mapping[str, Array]:
        away = (new - jnp.asarray(question.mean)) / SCALE
        return {
            "score_before": target.value(layers_of(question.network, old)),
            "score_after": target.value(layers_of(question.network, new)),
            "rms": jnp.sqrt((away**2).mean((1, 2, 3))),
        }

    loss = make_loss(objective, space.to_images, config)
    rate = step_rate(question, 0.05)
    predict, measure = compared(question, space, before, target.unit, extra)
    start = space.from_images(jnp.asarray(before))
    limits = pixel_projections(question, space)
    return optimised(
        question,
        predict=predict,
        measure=measure,
        protocol={
            **PROTOCOL,
            "score_before": f"unit {target.unit} of {target.layer} on the start",
            "score_after": "the same on the result",
            "rms": f"root mean square of the result's distance from the mean image, / {SCALE:g}",
        },
        draw=pictures(question, None),
        notes=says(question),
        params=np.asarray(start),
        loss=loss,
        optimizer=gradient_descent(config, space, rate, objective, config.l2, limits),
        learning_rate=rate,
        steps=config.steps or 128,
        images=as_pixels(before),
    )
