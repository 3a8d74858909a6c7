"""DeepDream: an image of any size, changed so that a layer sees more of what it sees."""

import math
from collections.abc import Callable, Mapping

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from research.experiment import Experiment
from research.understanding import objectives, regularisers
from research.understanding.before_after import PROTOCOL, compared, pictures, says
from research.understanding.network import layer_shapes, layers_of
from research.understanding.optimisation import SCALE, make_loss, optimised, step_rate
from research.understanding.parameterisation import pixels
from research.understanding.question import Question, as_pixels
from research.understanding.sizes import at_work_size, fitting, with_channels
from research.understanding.target import check_layer, check_unit, middle_layer


def dream(question: Question) -> Experiment:
    """Shows more of what a layer sees, first in a small image, then in larger ones.

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
        """Adds the change, enlarged, to the input at its own size."""
        original = with_channels(question.originals[number], image.shape[-1]).astype(np.float32)
        change = image.astype(np.float32) - before[number]
        h, w = original.shape[:2]
        large = cv2.resize(change, (w, h), interpolation=cv2.INTER_CUBIC).reshape(h, w, -1)
        return as_pixels(original + large)

    return optimised(
        question,
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
