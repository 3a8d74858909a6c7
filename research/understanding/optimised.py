"""The methods that optimise an image: its coordinates are the parameters of the training loop.

Losses return a value for each image, and optimizers get the gradient of their sum.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from research.errors import UserError
from research.experiment import Batch, Measures, PyTree, Variables
from research.figures import understanding as figures
from research.random import stream
from research.training import optimizers
from research.understanding import objectives, regularisers
from research.understanding.adversarial import margin, norms
from research.understanding.answers import (
    Answer,
    Question,
    as_pixels,
    averaged,
    probability_of,
)
from research.understanding.network import check_layer, inner_layers, layer_shapes, layers_of
from research.understanding.parameterisation import (
    Parameterisation,
    fourier,
    pixels,
    squashed,
)

# A coordinate of 1 is as far from the mean image as most pixels of photographs are.
SCALE = 64.0
CONFIDENT = 3.0  # how far fooling pushes the score beyond the others'

Objective = Callable[[Float[Array, "n height width channel"], Array], Float[Array, " n"]]


def coordinates(question: Question, height: int, width: int) -> Parameterisation:
    """The parameterisation that the options ask for."""
    config, channels = question.config, len(question.mean)
    if config.parameterisation == "pixels":
        return pixels(jnp.asarray(question.mean), SCALE)
    return squashed(fourier(height, width), channels, config.decorrelate)


def start_images(question: Question, count: int, height: int, width: int) -> np.ndarray:
    """The mean image, or noise on it."""
    start = np.broadcast_to(question.mean, (count, height, width, len(question.mean)))
    if question.config.start == "noise":
        draw = np.random.default_rng(question.config.seed).normal(size=start.shape)
        start = np.clip(start + 20.0 * draw, 0, 255)
    return start.astype(np.float32)


def step_rate(question: Question, default: float) -> optax.Schedule:
    """--learning_rate, or the method's own."""
    return optax.constant_schedule(question.config.learning_rate or default)


def pixel_projections(question: Question, space: Parameterisation) -> list[regularisers.Projection]:
    config = question.config
    found = []
    if config.parameterisation == "pixels":
        if config.blur_every:
            found.append(regularisers.blur_every(config.blur_every, config.blur_sigma))
        if config.clip_norms:
            found.append(regularisers.clip_small_norms(config.clip_norms))
        if config.clip_gradients:
            found.append(regularisers.clip_small_gradients(config.clip_gradients))
        found.append(regularisers.keep_between(space.low, space.high))
    elif config.blur_every or config.clip_norms or config.clip_gradients:
        raise UserError(
            "--blur_every, --clip_norms, --clip_gradients: act on pixels; add "
            "--parameterisation=pixels."
        )
    return found


def make_loss(objective: Objective, to_images: Callable[[Array], Any], config: Any) -> Any:
    """The contract's loss of an objective (images, step) -> value of each, to be minimised."""

    def loss(variables: Variables, batch: Batch, key: Array, axis: str | None) -> Any:
        images = to_images(variables["params"]["image"])
        step = variables["schedule"]["step"]
        pixels = config.jitter if config.jitter >= 0 else min(images.shape[1:3]) // 28
        moved = regularisers.jitter(images, stream(key, "jitter"), pixels)
        values = objective(moved, step)
        if config.total_variation:
            values += config.total_variation * objectives.total_variation(images / 255.0)
        state = {"schedule": {"step": step + 1}}
        return values[batch["index"]], state, {}

    return loss


def gradient_descent(
    config: Any,
    space: Parameterisation,
    rate: optax.Schedule,
    objective: Objective,
    l2: float,
    projections: Sequence[regularisers.Projection],
) -> optax.GradientTransformation:
    """Adam, or L-BFGS with a line search, and the regularisers."""
    decay = [regularisers.l2_penalty(l2)] if l2 else []
    if config.solver == "adam":
        steps = optimizers.make("adam", rate)
        return regularisers.projected(optax.chain(*decay, steps), projections)

    def value(p: Array) -> Array:
        images = space.to_images(p)
        values = objective(images, jnp.int32(0))
        if config.total_variation:
            values += config.total_variation * objectives.total_variation(images / 255.0)
        return values.sum() + l2 * (p**2).sum()

    return regularisers.projected(optax.chain(*decay, lbfgs(value)), projections)


def lbfgs(value: Callable[[Array], Array]) -> optax.GradientTransformation:
    """optax's L-BFGS, for a loss known as a function: it searches along its direction.

    Args:
      value: the image's coordinates -> what the gradients are the gradient of.
    """
    inner = optax.lbfgs()

    def of_params(params: Any) -> Array:
        return value(params["image"])

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return inner.update(
            gradients,
            state,
            params,
            value=of_params(params),
            grad=gradients,
            value_fn=of_params,
        )

    return optax.GradientTransformation(inner.init, update)


# --- What is seen of an image, before and after ---


def compared(
    question: Question,
    space: Parameterisation,
    before: np.ndarray,
    unit: Any,
    extra: Callable[[Array, Array], Mapping[str, Array]] | None = None,
) -> tuple[Callable[[Variables, Batch], PyTree], Callable[[PyTree, Batch], Measures]]:
    """`predict` and `measure` of methods that change an image: what it is called, before and after.

    Pixels are rounded first, as a file holds them. Classes are compared where the network has any.

    Args:
      unit: the class whose probability is reported; None for what the image was called.
      extra: (before, after) -> further numbers of each image.
    """
    has_classes = question.asks_class

    def seen(images: Array, unit: int | Array | None) -> dict[str, Array]:
        if not has_classes:
            return {}
        scores = question.class_scores(images)
        top = scores.argmax(-1)
        asked = top if unit is None else unit
        return {"top": top, "probability": probability_of(scores, asked)}

    def predict(variables: Variables, batch: Batch) -> PyTree:
        images = jnp.round(jnp.clip(space.to_images(variables["params"]["image"]), 0, 255))
        images = images[batch["index"]]
        old = jnp.asarray(before)[batch["index"]]
        first = seen(old, unit)
        then = seen(images, unit if unit is not None else first.get("top"))
        more = extra(old, images) if extra else {}
        return {"image": images, "before": first, "after": then, **more}

    def measure(outputs: PyTree, batch: Batch) -> Measures:
        values = {
            name: x for name, x in outputs.items() if name not in ("image", "before", "after")
        }
        for when in ("before", "after"):
            if "probability" in outputs[when]:
                values[f"probability_{when}"] = outputs[when]["probability"]
        if has_classes:
            changed = outputs["after"]["top"] != outputs["before"]["top"]
            values["called_otherwise"] = changed.astype(jnp.float32)
        return averaged(values)

    return predict, measure


PROTOCOL = {
    "probability_before": "softmax of the class in question, on the start",
    "probability_after": "the same on the result, its pixels rounded to 8 bits",
    "called_otherwise": "share of images whose most probable class is another one",
    "linf": "largest change of a value, values 0..255",
    "l2": "Euclidean length of the change, values 0..255",
    "changed_pixels": "share of pixels that changed",
}


def says(question: Question) -> Callable[[PyTree, Batch], list[str]]:
    """Lines such as "photo.jpg: tabby 0.62 -> toaster 0.99"."""

    def notes(outputs: PyTree, batch: Batch) -> list[str]:
        if "top" not in outputs["after"]:
            return []
        return [
            f"{name}: {a} -> {b}" if name else f"{a} -> {b}"
            for name, (a, b) in zip(
                _labels(question, len(outputs["image"])), captions(question, outputs), strict=True
            )
        ]

    return notes


def _labels(question: Question, count: int) -> list[str]:
    return list(question.names) if len(question.names) == count else [""] * count


def captions(question: Question, outputs: PyTree) -> list[tuple[str, str]]:
    """What each image is called before and after."""
    rows = []
    for i in range(len(outputs["image"])):
        texts = []
        for when in ("before", "after"):
            found = outputs[when]
            text = ""
            if "top" in found:
                name = question.class_name(int(found["top"][i]))
                text = f"called {name}, p of class asked {float(found['probability'][i]):.3f}"
            texts.append(text)
        rows.append((texts[0], texts[1]))
    return rows


def pictures(
    question: Question,
    before: np.ndarray | None,
    finish: Callable[[np.ndarray, int], np.ndarray] | None = None,
) -> Callable[[PyTree, Batch], Mapping[str, Any]]:
    """`draw`: a figure with captions, and each image pixel for pixel.

    Args:
      before: shown beside the result, with the change; None where it says nothing.
      finish: (result, number of the input) -> a further image, at the input's own size.
    """

    def draw(outputs: PyTree, batch: Batch) -> Mapping[str, Any]:
        results = as_pixels(outputs["image"])
        found: dict[str, Any] = {
            question.config.method: figures.changes(before, results, captions(question, outputs))
        }
        for i, (image, name) in enumerate(
            zip(results, _labels(question, len(results)), strict=True)
        ):
            stem = first = name.rpartition("/")[2].partition(".")[0] or f"{i}"
            times = 1
            while f"image_{stem}" in found:  # files of several folders share their name
                times += 1
                stem = f"{first}-{times}"
            found[f"image_{stem}"] = image
            if finish is not None:
                found[f"original_size_{stem}"] = finish(image, i)
        return found

    return draw


# --- The methods ---


def visualise(question: Question) -> Answer:
    """A class, or any unit, from nothing: ascent on the score, not on the probability.

    A probability also rises when other classes fall, so pictures of it show less of the class.
    """
    config = question.config
    default = "goose" if "goose" in question.network.class_names else "0"
    target = question.target(default)
    if config.start == "input":
        question.needs_inputs()
        before = question.images.astype(np.float32)
    else:
        before = start_images(question, 1, *question.network.image_shape[:2])
    space = coordinates(question, *before.shape[1:3])

    def objective(images: Array, step: Array) -> Array:
        return -target.value(layers_of(question.network, images))

    def extra(old: Array, new: Array) -> Mapping[str, Array]:
        away = (new - jnp.asarray(question.mean)) / SCALE
        return {
            "score": target.value(layers_of(question.network, new)),
            "rms": jnp.sqrt((away**2).mean((1, 2, 3))),
        }

    if config.solver == "lbfgs":
        raise UserError(
            "--solver=lbfgs: is for --method=style and invert; here images are shifted."
        )
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
            "score": f"unit {target.unit} of {target.layer} on the result",
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
    shapes = layer_shapes(network)
    layer = config.layer or middle_layer(shapes, network.image_shape[0])
    check_layer(layer, shapes)
    original = question.images.astype(np.float32)
    wanted = np.asarray(jax.jit(lambda x: layers_of(network, x)[layer])(original))
    before = start_images(question, len(original), *original.shape[1:3])
    space = coordinates(question, *original.shape[1:3])

    def distance(images: Array) -> Array:
        return objectives.inversion_loss(layers_of(network, images)[layer], jnp.asarray(wanted))

    plain = dataclasses.replace(config, jitter=0)  # places matter here
    objective = lambda x, step: distance(x)
    limits = pixel_projections(question, space)
    rate = step_rate(question, 0.05)
    predict, measure = compared(
        question,
        space,
        original,
        None,
        lambda old, new: {
            "distance": distance(new),
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


def middle_layer(shapes: Mapping[str, tuple[int, ...]], side: int) -> str:
    """The last layer whose maps are at least a sixteenth of the image's side."""
    sizes = {name: shapes[name] for name in inner_layers(shapes) if len(shapes[name]) == 4}
    maps = [name for name, s in sizes.items() if s[1] >= side // 16 and s[1] > 1]
    if not maps:
        raise UserError("the network has no maps, only vectors: name --layer.")
    return maps[-1]


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
    if aim is not None and not config.class_:
        raise UserError(f"--method={config.method}: takes --class, not --unit.")
    original = question.images.astype(np.float32)
    space = pixels()
    first = np.asarray(jax.jit(lambda x: question.class_scores(x).argmax(-1))(original))
    unit = first if aim is None else np.full(len(original), aim)

    def objective(images: Array, step: Array) -> Array:
        lead = margin(question.class_scores(images), jnp.asarray(unit), toward=aim is not None)
        # Once the answer is safely another one there is nothing to gain: the image stays.
        return jnp.maximum(lead, -CONFIDENT) if config.method == "fool" else lead

    steps = config.steps or {"fool": 100, "fgsm": 1, "pgd": 20}[config.method]
    epsilon = config.epsilon or {"linf": 2.0, "l2": 200.0}[config.norm]
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
