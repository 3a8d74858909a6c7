"""Style transfer: an image of any size, painted in the style of another picture."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from research.data.images import reading as image_files
from research.errors import UserError
from research.experiment import Experiment
from research.understanding import objectives, progress_strip, regularisers
from research.understanding.before_after import compared, pictures
from research.understanding.network import layer_shapes, layers_of
from research.understanding.optimisation import (
    SCALE,
    gradient_descent,
    make_loss,
    optimised,
    start_images,
    step_rate,
)
from research.understanding.parameterisation import pixels
from research.understanding.question import Question, as_pixels
from research.understanding.sizes import at_work_size, resized, with_channels
from research.understanding.target import check_layer


def style_layers(shapes: Mapping[str, Sequence[int]]) -> tuple[list[str], str]:
    """Chooses the layers of the style, and that of the content.

    They are the first activation at each of up to five sizes of maps, and the second at the fourth:
    conv1_1 to conv5_1, and conv4_2, where the network is VGG-16.
    """
    sides: dict[int, list[str]] = {}
    for name, shape in shapes.items():
        if len(shape) == 4 and min(shape[1:3]) > 1 and "activation" in name.rpartition("/")[2]:
            sides.setdefault(shape[1], []).append(name)
    levels = list(sides.values())[:5]
    if not levels:
        raise UserError(
            "the model has no activations on maps: name --style_layers and --layer (content)."
        )
    content = levels[min(3, len(levels) - 1)]
    return [level[0] for level in levels], content[min(1, len(content) - 1)]


def layer_weights(texts: Sequence[str]) -> dict[str, float]:
    """Reads layers of the style, each with its weight: "activation#1" or "activation#1:0.5".

    Raises:
      UserError: for a weight that is no positive number.
    """
    found = {}
    for text in texts:
        name, colon, weight = text.partition(":")
        try:
            found[name] = float(weight) if colon else 1.0
        except ValueError:
            found[name] = 0.0
        if not (found[name] > 0 and math.isfinite(found[name])):
            raise UserError(f"--style_layers={text}: a weight is a positive number, LAYER:0.5.")
    return found


def style(question: Question) -> Experiment:
    """Paints the input in the style of another picture: Gatys et al. 2015, equation 7."""
    question.needs_inputs()
    config, network = question.config, question.network
    if not config.style:
        raise UserError("--method=style: needs --style=painting.jpg.")
    before = at_work_size(question, config.size or 256)
    height, width = before.shape[1:3]
    picture = image_files.read(config.style)
    longest = max(height, width) / max(picture.shape[:2])
    sizes = [max(round(n * longest), 1) for n in picture.shape[:2]]
    picture = with_channels(resized(picture, *sizes), network.image_shape[2])[None]
    shapes = layer_shapes(network, (height, width))
    styled, content = style_layers(shapes)
    weights = layer_weights(config.style_layers) or dict.fromkeys(styled, 1.0)
    styled, content = list(weights), config.layer or content
    for name in (*styled, content):
        check_layer(name, shapes)

    grams = {
        name: np.asarray(objectives.gram_matrix(maps))
        for name, maps in _values(network, picture.astype(np.float32), styled).items()
    }
    wanted = np.asarray(_values(network, before, [content])[content])
    # Each layer's loss as a share of that of an image without any style, whose Gram matrix is 0.
    empty = {k: float((g**2).sum() / (4 * g.shape[-1] ** 2)) for k, g in grams.items()}

    def losses(images: Array, rows: Array) -> tuple[Array, Array]:
        layers = layers_of(network, images)
        parts = [objectives.style_loss(layers[k], grams[k]) / empty[k] for k in styled]
        scale = 1.0 / float((wanted**2).mean())
        kept = scale * objectives.content_loss(layers[content], jnp.asarray(wanted)[rows])
        shares = jnp.asarray(list(weights.values())) / sum(weights.values())
        return (shares[:, None] * jnp.stack(parts)).sum(0), kept

    def named(images: Array, rows: Array) -> Mapping[str, Array]:
        return dict(zip(("style_loss", "content_loss"), losses(images, rows), strict=True))

    def objective(images: Array, step: Array, rows: Array) -> Array:
        style_part, content_part = losses(images, rows)
        return config.style_weight * style_part + config.content_weight * content_part

    drawn = config.start in ("zeros", "noise")
    start = start_images(question, len(before), height, width) if drawn else before
    space = pixels(jnp.asarray(question.mean), SCALE)
    rate = step_rate(question, 0.1)
    smooth = dataclasses.replace(config, jitter=0)
    keep = [regularisers.keep_between(space.low, space.high)]

    def extra(old: Array, new: Array) -> Mapping[str, Array]:
        rows = jnp.arange(len(new))
        (style_before, _), (style_after, content_after) = losses(old, rows), losses(new, rows)
        return {
            "style_loss_before": style_before,
            "style_loss_after": style_after,
            "content_loss_after": content_after,
        }

    blind = dataclasses.replace(question, network=network._replace(class_names=()))
    predict, measure = compared(blind, space, start, None, extra)
    steps = config.steps or 200

    def finish(image: np.ndarray, number: int) -> np.ndarray:
        return as_pixels(resized(image, *question.originals[number].shape[:2]))

    return optimised(
        question,
        predict=progress_strip.shown(predict, named),
        measure=measure,
        protocol={
            "style_loss_before": f"of the start: mean over {', '.join(styled)} of the Gram "
            "matrices' squared difference, relative to the style's own",
            "style_loss_after": "the same of the result",
            "content_loss_after": f"half the squared difference of {content}, relative",
        },
        draw=progress_strip.drawing(
            pictures(blind, before, finish if config.original_size else None), steps
        ),
        params=np.asarray(space.from_images(jnp.asarray(start))),
        state={"strip": progress_strip.empty(as_pixels(before), steps)},
        loss=progress_strip.keeping(
            make_loss(objective, space.to_images, smooth, named), space.to_images, steps
        ),
        optimizer=gradient_descent(config, space, rate, objective, 0.0, keep),
        learning_rate=rate,
        steps=steps,
        images=as_pixels(before),
    )


def _values(network: Any, images: np.ndarray, names: Sequence[str]) -> dict[str, Array]:
    """Computes some layers' values once."""

    def chosen(x: Array) -> dict[str, Array]:
        layers = layers_of(network, x)
        return {name: layers[name] for name in names}

    return jax.jit(chosen)(images)
