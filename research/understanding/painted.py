"""DeepDream and style transfer: images of any size and aspect, changed as a whole."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from research.data import images as image_files
from research.errors import UserError
from research.understanding import objectives, regularisers
from research.understanding.answers import Answer, Question, as_pixels
from research.understanding.before_after import PROTOCOL, compared, pictures, says
from research.understanding.network import layer_shapes, layers_of
from research.understanding.optimisation import (
    SCALE,
    gradient_descent,
    make_loss,
    start_images,
    step_rate,
)
from research.understanding.parameterisation import pixels
from research.understanding.target import check_layer, check_unit, middle_layer


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image of values 0..255 at another size: areas where it shrinks, else bicubic."""
    if image.shape[:2] == (height, width):
        return image
    smaller = height * width < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    result = cv2.resize(image.astype(np.float32), (width, height), interpolation=method)
    return np.clip(result.reshape(height, width, -1), 0, 255)


def at_work_size(question: Question, longest: int) -> np.ndarray:
    """Inputs [N, H, W, C], all of one shape, their longer side about `longest` pixels.

    Raises:
      UserError: inputs of several shapes, or that the network does not take.
    """
    channels = question.network.image_shape[2]
    results = []
    for original in question.originals:
        scale = longest / max(original.shape[:2])
        sides = [max(round(n * scale), 1) for n in original.shape[:2]]
        height, width = fitting(question, *sides)
        results.append(with_channels(resized(original, height, width), channels))
    if len({x.shape for x in results}) > 1:
        raise UserError(
            f"--method={question.config.method}: takes --inputs of one shape at a time; "
            f"{question.names[0]} and others differ."
        )
    return np.stack(results).astype(np.float32)


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Grey as RGB, or RGB as grey."""
    if image.shape[-1] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=-1)
    return cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2GRAY)[..., None]


def fitting(question: Question, height: int, width: int) -> tuple[int, int]:
    """That size, or the nearest in steps of 8, 16 or 32 pixels, that the network takes.

    Without --size its own as a last resort, of another aspect: it takes images of that size alone.

    Raises:
      UserError: where there is none.
    """
    problems: list[Exception] = []
    for step in (1, 8, 16, 32):
        size = max(round(height / step), 1) * step, max(round(width / step), 1) * step
        try:
            layer_shapes(question.network, size)
        except Exception as error:  # Flax and JAX have many ways to say so
            problems.append(error)
        else:
            return size
    if not question.config.size:
        return question.network.image_shape[:2]
    if all(isinstance(problem, UserError) for problem in problems):
        raise UserError(f"--size={question.config.size}: {problems[0]}") from problems[0]
    own = " x ".join(map(str, question.network.image_shape[:2]))
    raise UserError(
        f"--size={question.config.size}: the model takes images of {own} alone (not {height} x "
        f"{width}); what it predicts depends on the size. Leave the flag out."
    ) from problems[-1]


def dream(question: Question) -> Answer:
    """More of what a layer sees, first in a small image, then in larger ones.

    The image stays at full size; what is shown to the network is shrunk. So what a small size adds
    is enlarged, and the input's detail is never lost.
    """
    question.needs_inputs()
    config, network = question.config, question.network
    before = at_work_size(question, config.size or max(network.image_shape[:2]))
    height, width = before.shape[1:3]
    scales = [config.octave_scale ** -(config.octaves - 1 - i) for i in range(config.octaves)]
    sizes = [fitting(question, round(height * s), round(width * s)) for s in scales]
    shapes = layer_shapes(network, (height, width))
    layer = config.layer or middle_layer(shapes, (height, width))
    check_layer(layer, shapes)
    check_unit(config.unit, layer, shapes)
    space = pixels(jnp.asarray(question.mean), SCALE)
    steps = config.steps or 15 * config.octaves
    each = math.ceil(steps / config.octaves)

    def at(size: tuple[int, int]) -> Callable[[Array], Array]:
        def values(images: Array) -> Array:
            small = jax.image.resize(
                images, (len(images), *size, images.shape[-1]), "bilinear", antialias=True
            )
            maps = layers_of(network, small)[layer]
            if config.unit >= 0:
                maps = maps[..., [config.unit]]
            return -objectives.dream_objective(maps)

        return values

    def objective(images: Array, step: Array, rows: Array) -> Array:
        octave = jnp.minimum(step // each, config.octaves - 1)
        return jax.lax.switch(octave, [at(size) for size in sizes], images)

    rate = step_rate(question, 0.03)
    optimizer = regularisers.projected(
        optax.chain(regularisers.by_deviation(), optax.scale_by_learning_rate(rate)),
        [regularisers.keep_between(space.low, space.high)],
    )

    def extra(old: Array, new: Array) -> Mapping[str, Array]:
        full = at(sizes[-1])
        return {"excitation_before": -full(old), "excitation_after": -full(new)}

    predict, measure = compared(question, space, before, None, extra)

    def finish(image: np.ndarray, number: int) -> np.ndarray:
        """The input at its own size, with the change enlarged."""
        original = with_channels(question.originals[number], image.shape[-1]).astype(np.float32)
        change = image.astype(np.float32) - before[number]
        h, w = original.shape[:2]
        large = cv2.resize(change, (w, h), interpolation=cv2.INTER_CUBIC).reshape(h, w, -1)
        return as_pixels(original + large)

    return Answer(
        predict=predict,
        measure=measure,
        protocol={
            **PROTOCOL,
            "excitation_before": f"mean square of {layer} on the input",
            "excitation_after": f"mean square of {layer} on the result",
        },
        draw=pictures(question, before, finish if config.original_size else None),
        notes=says(question),
        params=np.asarray(space.from_images(jnp.asarray(before))),
        loss=make_loss(objective, space.to_images, config),
        optimizer=optimizer,
        learning_rate=rate,
        steps=steps,
        images=as_pixels(before),
    )


def style_layers(shapes: Mapping[str, Sequence[int]]) -> tuple[list[str], str]:
    """The first activation at each of up to five sizes of maps, and for the content the second at
    the fourth: conv1_1 to conv5_1, and conv4_2, where the network is VGG-16.
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


def style(question: Question) -> Answer:
    """Content of the input, style of another picture: Gatys et al. 2015, equation 7."""
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
    styled, content = list(config.style_layers) or styled, config.layer or content
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
        return jnp.stack(parts).mean(0), kept

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

    def finish(image: np.ndarray, number: int) -> np.ndarray:
        return as_pixels(resized(image, *question.originals[number].shape[:2]))

    return Answer(
        predict=predict,
        measure=measure,
        protocol={
            "style_loss_before": f"of the start: mean over {', '.join(styled)} of the Gram "
            "matrices' squared difference, relative to the style's own",
            "style_loss_after": "the same of the result",
            "content_loss_after": f"half the squared difference of {content}, relative",
        },
        draw=pictures(blind, before, finish if config.original_size else None),
        params=np.asarray(space.from_images(jnp.asarray(start))),
        loss=make_loss(objective, space.to_images, smooth),
        optimizer=gradient_descent(config, space, rate, objective, 0.0, keep),
        learning_rate=rate,
        steps=config.steps or 200,
        images=as_pixels(before),
    )


def _values(network: Any, images: np.ndarray, names: Sequence[str]) -> dict[str, Array]:
    """Some layers' values, computed once."""

    def chosen(x: Array) -> dict[str, Array]:
        layers = layers_of(network, x)
        return {name: layers[name] for name in names}

    return jax.jit(chosen)(images)


ANSWERS: dict[str, Callable[[Question], Answer]] = {"dream": dream, "style": style}
