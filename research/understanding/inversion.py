"""Inversion of a layer: an image in which it sees what it saw in the input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from research.errors import UserError
from research.experiment import Experiment
from research.understanding import objectives
from research.understanding.before_after import PROTOCOL, compared, pictures, says
from research.understanding.network import layer_shapes, layers_of
from research.understanding.optimisation import (
    coordinates,
    gradient_descent,
    make_loss,
    optimised,
    pixel_projections,
    start_images,
    step_rate,
)
from research.understanding.question import Question
from research.understanding.target import check_layer, middle_layer


def invert(question: Question) -> Experiment:
    """Finds an image that a layer cannot tell from the input: what the layer kept of it."""
    question.needs_inputs()
    config, network = question.config, question.network
    if config.start == "input":
        raise UserError("--start=input: is what --method=invert looks for; leave it out.")
    shapes = layer_shapes(network)
    layer = config.layer or middle_layer(shapes, network.image_shape[:2])
    check_layer(layer, shapes)
    original = question.images.astype(np.float32)
    wanted = np.asarray(jax.jit(lambda x: layers_of(network, x)[layer])(original))
    before = start_images(question, len(original), *original.shape[1:3])
    space = coordinates(question, *original.shape[1:3])

    def distance(images: Array, rows: Array) -> Array:
        return objectives.inversion_loss(
            layers_of(network, images)[layer], jnp.asarray(wanted)[rows]
        )

    plain = dataclasses.replace(config, jitter=0)  # places matter here
    objective = lambda x, step, rows: distance(x, rows)
    limits = pixel_projections(question, space)
    rate = step_rate(question, 0.05)
    predict, measure = compared(
        question,
        space,
        original,
        None,
        lambda old, new: {
            "distance": distance(new, jnp.arange(len(new))),
            "pixel_error": jnp.sqrt(((new - old) ** 2).mean((1, 2, 3))),
        },
    )
    return optimised(
        question,
        predict=predict,
        measure=measure,
        protocol={
            **PROTOCOL,
            "distance": f"squared distance of {layer} to the input's, relative to its length",
            "pixel_error": "root mean square difference to the input, values 0..255",
        },
        draw=pictures(question, original),
        notes=says(question),
        params=np.asarray(space.from_images(jnp.asarray(before))),
        loss=make_loss(objective, space.to_images, plain),
        optimizer=gradient_descent(config, space, rate, objective, config.l2, limits),
        learning_rate=rate,
        steps=config.steps or 128,
        images=question.images,
    )
