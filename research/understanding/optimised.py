"""The methods that optimise an image: its coordinates are the parameters of the training loop."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from research.errors import UserError
from research.understanding import objectives, regularisers
from research.understanding.adversarial import margin, norms
from research.understanding.answers import Answer, Question, as_pixels
from research.understanding.before_after import PROTOCOL, compared, pictures, says
from research.understanding.network import layer_shapes, layers_of
from research.understanding.optimisation import (
    SCALE,
    coordinates,
    gradient_descent,
    make_loss,
    pixel_projections,
    start_images,
    step_rate,
)
from research.understanding.parameterisation import pixels
from research.understanding.target import check_layer, middle_layer

CONFIDENT = 3.0  # how far fooling pushes the score beyond the others'


def visualise(question: Question) -> Answer:
    """A class, or any unit, from nothing: ascent on the score, not on the probability.

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
    return Answer(
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


def invert(question: Question) -> Answer:
    """An image that a layer cannot tell from the input: what the layer kept of it."""
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
    return Answer(
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


def attack(question: Question) -> Answer:
    """fool, fgsm, pgd: what the input is called changes, to --class or to anything else."""
    question.needs_inputs()
    config = question.config
    if not question.asks_class:
        raise UserError(
            f"--method={config.method}: changes what an image is called, and here nothing is "
            "called anything; it needs a classifier, and no --layer."
        )
    aim = question.target().unit  # None: away from what it is called
    original = question.images.astype(np.float32)
    space = pixels()
    first = np.asarray(jax.jit(lambda x: question.class_scores(x).argmax(-1))(original))
    unit = first if aim is None else np.full(len(original), aim)

    def objective(images: Array, step: Array, rows: Array) -> Array:
        scores, units = question.class_scores(images), jnp.asarray(unit)[rows]
        lead = margin(scores, units, toward=aim is not None)
        # Once the answer is safely another one there is nothing to gain: the image stays.
        return jnp.maximum(lead, -CONFIDENT) if config.method == "fool" else lead

    steps = config.steps or {"fool": 100, "fgsm": 1, "pgd": 20}[config.method]
    epsilon = config.epsilon or {"linf": 2.0, "l2": 200.0}[config.norm]
    if config.norm == "linf" and epsilon % 1:
        raise UserError(f"--epsilon={epsilon:g}: files hold whole values 0..255; take a whole one.")
    near = regularisers.keep_near(jnp.asarray(original), epsilon, config.norm)
    limits = [regularisers.keep_between(0.0, 255.0)]
    if config.method == "fool":
        order, rate = "l2", step_rate(question, 40.0)
    else:
        order, limits = config.norm, [near, *limits]
        # Far enough in all to reach the border of the ball two and a half times.
        size = 1.0 if steps == 1 else 2.5 / steps
        rate = step_rate(question, epsilon * size)
    optimizer = regularisers.projected(
        optax.chain(regularisers.by_norm(order), optax.scale_by_learning_rate(rate)), limits
    )
    predict, measure = compared(question, space, original, aim, lambda old, new: norms(new - old))
    still = dataclasses.replace(config, jitter=0, total_variation=0.0)
    return Answer(
        predict=predict,
        measure=measure,
        protocol=PROTOCOL,
        draw=pictures(question, original),
        notes=says(question),
        params=original,
        loss=make_loss(objective, space.to_images, still),
        optimizer=optimizer,
        learning_rate=rate,
        steps=steps,
        images=question.images,
    )


ANSWERS: dict[str, Callable[[Question], Answer]] = {
    "visualise": visualise,
    "invert": invert,
    "fool": attack,
    "fgsm": attack,
    "pgd": attack,
}
