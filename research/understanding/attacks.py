"""Adversarial examples: what an image is called changes, by as little as a person sees."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from research.errors import UserError
from research.experiment import Batch, Evaluator, Experiment, Pictures, PyTree
from research.figures import understanding as figures
from research.understanding import regularisers
from research.understanding.adversarial import margin, norms, smallest_perturbation
from research.understanding.before_after import PROTOCOL, compared, pictures, says
from research.understanding.looking import (
    Answer,
    Image,
    captions,
    each_image,
    evaluated,
    measure_all,
)
from research.understanding.optimisation import make_loss, optimised, step_rate
from research.understanding.parameterisation import pixels
from research.understanding.question import Question
from research.understanding.target import Target

CONFIDENT = 3.0  # how far fooling pushes the score beyond the others'


def attack(question: Question) -> Experiment:
    """Changes what the input is called, to --class or to anything else: fool, fgsm, pgd."""
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
    return optimised(
        question,
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


def smallest(question: Question) -> Answer:
    """Finds the smallest change that changes the answer: PGD, and bisection over its radius."""
    config = question.config
    if not question.asks_class:
        raise UserError("--method=smallest: needs a classifier, and no --layer.")
    toward = bool(config.class_)
    highest = config.epsilon or {"linf": 64.0, "l2": 5000.0}[config.norm]

    def one(x: Image, target: Target) -> dict[str, Array]:
        def loss(images: Array) -> Array:
            scores = question.class_scores(images)
            return margin(scores, jnp.broadcast_to(jnp.asarray(target.unit), (1,)), toward)

        found = smallest_perturbation(loss, x, config.norm, highest)
        new_scores = question.class_scores(found.images)
        moved = norms(found.images - x)
        return {
            "image": found.images[0],
            "found": jnp.isfinite(found.epsilon[0]).astype(jnp.float32),
            "top": new_scores.argmax(-1)[0],
            "new_probability": jax.nn.softmax(new_scores).max(),
            "linf": moved["linf"][0],
            "l2": moved["l2"][0],
        }

    def texts(outputs: PyTree) -> list[tuple[str, str]]:
        return [
            (
                first,
                f"{question.class_name(int(top))} {float(p):.2f}, {config.norm} {float(size):.3g}",
            )
            for first, top, p, size in zip(
                captions(question, outputs),
                outputs["top"],
                outputs["new_probability"],
                outputs[config.norm],
                strict=True,
            )
        ]

    def draw(outputs: PyTree, batch: Batch) -> Pictures:
        before = np.asarray(batch["image"], np.float32)
        return {"smallest": figures.changes(before, outputs["image"], texts(outputs))}

    def notes(outputs: PyTree, batch: Batch) -> list[str]:
        pairs = zip(question.names, texts(outputs), strict=True)
        return [f"{name}: {a} -> {b}" for name, (a, b) in pairs]

    protocol = {
        "found": f"share of images that change their class within {highest:g}",
        "probability": "softmax of the class before",
        "linf": PROTOCOL["linf"] + ", not rounded; an upper bound of the smallest",
        "l2": "Euclidean length of the change, values 0..255, not rounded",
    }
    evaluator = Evaluator(protocol, measure_all(list(protocol)), draw=draw)
    return evaluated(question, each_image(question, one), evaluator, notes)
