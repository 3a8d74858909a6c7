"""The methods that look at an image: nothing is trained, `predict` is the method.

Images are worked on one at a time, so memory does not grow with their number.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.errors import UserError
from research.experiment import Batch, Measures, PyTree, Variables
from research.figures import understanding as figures
from research.random import stream
from research.spacing import spaced
from research.understanding import gradients
from research.understanding.answers import (
    Answer,
    Question,
    as_pixels,
    averaged,
    probability_of,
)
from research.understanding.features import activation_tiles
from research.understanding.grad_cam import grad_cam
from research.understanding.network import Network, layer_shapes, layers_of
from research.understanding.occlusion import occlude
from research.understanding.relu_rules import Rule
from research.understanding.segmentation import segment
from research.understanding.target import Target, check_layer, check_rule, last_maps, middle_layer

NOTES = 16  # lines of notes, at most
Image = Float[Array, "1 height width channel"]
# (image, target) -> {name: array of this image, without the leading 1}
Look = Callable[[Image, Target], dict[str, Array]]


def look(question: Question, one: Look) -> Callable[[Variables, Batch], PyTree]:
    """`predict` for all images: the unit asked about (the most probable class by default), and
    what `one` finds.
    """
    question.needs_inputs()
    asked = question.target()
    every_unit = asked.unit is None and question.asks_class

    def of_image(image: Float[Array, "height width channel"]) -> dict[str, Array]:
        target = asked
        if question.asks_class:
            scores = question.class_scores(image[None])
            unit = scores[0].argmax() if every_unit else jnp.asarray(asked.unit or 0)
            target = asked._replace(unit=unit)
            found = {"unit": unit, "probability": probability_of(scores, unit)[0]}
        else:
            found = {"score": score_of(question.network, asked)(image[None])[0]}
        return {**found, **one(image[None], target)}

    def predict(variables: Variables, batch: Batch) -> PyTree:
        return jax.lax.map(of_image, jnp.asarray(batch["image"], jnp.float32))

    return predict


def score_of(network: Network, target: Target, rule: Any = None) -> gradients.Score:
    """The target's value, as a function of images."""
    return lambda images: target.value(layers_of(network, images, rule=rule))


def mean_image(question: Question) -> Float[Array, " channel"]:
    """What stands for nothing."""
    return jnp.asarray(question.mean, jnp.float32)


def captions(question: Question, outputs: PyTree) -> list[str]:
    """The class that each image is asked about, and its probability."""
    if "unit" not in outputs:
        return [asked_text(question)] * len(outputs["map"])
    return [
        f"{question.class_name(int(unit))} {float(p):.2f}"
        for unit, p in zip(outputs["unit"], outputs["probability"], strict=True)
    ]


def asked_text(question: Question) -> str:
    """What is asked about, where it is not a class."""
    target, network = question.target(), question.network
    if target.unit is None:
        return f"{target.layer}, mean of all units"
    if target.layer == network.class_layer:
        return f"{network.class_names[int(target.unit)]!r} in {target.layer}"
    return f"{target.layer}, unit {target.unit}"


def measure_all(names: Sequence[str]) -> Callable[[PyTree, Batch], Measures]:
    """Means over images of some outputs."""
    return lambda outputs, batch: averaged({n: outputs[n] for n in names if n in outputs})


def notes(question: Question) -> Callable[[PyTree, Batch], list[str]]:
    """A line for each input: what it was asked about."""

    def said(outputs: PyTree, batch: Batch) -> list[str]:
        texts = captions(question, outputs) if "unit" in outputs else []
        lines = [f"{name}: {text}" for name, text in zip(question.names, texts, strict=False)]
        return [lines[i] for i in spaced(len(lines), NOTES)]

    return said


def heat_answer(question: Question, one: Look, protocol: Mapping[str, str] | None = None) -> Answer:
    """An answer whose outputs hold "map" [B, h, w]."""

    def draw(outputs: PyTree, batch: Batch) -> Mapping[str, Any]:
        name = question.config.method
        return {
            name: figures.heat_maps(
                batch["image"], outputs["map"], captions(question, outputs), name
            )
        }

    told = {
        "probability": "softmax of the class asked about",
        "score": f"value of {asked_text(question)}",
        **(protocol or {}),
    }
    return Answer(
        predict=look(question, one),
        measure=measure_all(list(told)),
        protocol=told,
        draw=draw,
        notes=notes(question),
    )


def saliency(question: Question) -> Answer:
    return heat_answer(
        question,
        lambda x, target: {"map": gradients.saliency(score_of(question.network, target), x)[0]},
    )


def smoothed(question: Question, signed: bool) -> Answer:
    """Mean over noisy copies of the gradient, whose size is shown, or of its size."""
    config = question.config
    key = stream(jax.random.key(config.seed), "smooth_grad")
    given = (key, config.samples or 32, config.noise)

    def one(x: Image, target: Target) -> dict[str, Array]:
        score = score_of(question.network, target)
        if not signed:
            return {"map": gradients.smooth_saliency(score, x, *given)[0]}
        return {"map": jnp.abs(gradients.smooth_grad(score, x, *given)[0]).max(-1)}

    return heat_answer(question, one)


def gradient_times_input(question: Question) -> Answer:
    baseline = mean_image(question)

    def one(x: Image, target: Target) -> dict[str, Array]:
        found = gradients.gradient_times_input(
            score_of(question.network, target), x, jnp.broadcast_to(baseline, x.shape)
        )
        return {"map": found[0].sum(-1)}

    return heat_answer(question, one)


def integrated_gradients(question: Question) -> Answer:
    baseline, samples = mean_image(question), question.config.samples

    def one(x: Image, target: Target) -> dict[str, Array]:
        score, start = score_of(question.network, target), jnp.broadcast_to(baseline, x.shape)
        if samples:
            found, points = gradients.integrated_gradients(score, x, start, samples), samples
        else:
            found, points = gradients.refined_integrated_gradients(score, x, start)
        gap = gradients.completeness_gap(score, x, found, start)
        points = jnp.asarray(points, jnp.float32)
        return {"map": found[0].sum(-1), "completeness_gap": gap[0], "points": points}

    return heat_answer(
        question,
        one,
        {
            "completeness_gap": "|sum of attributions - (score - score of the mean image)| / "
            "|the difference|",
            "points": "on the line from the mean image",
        },
    )


def ruled(question: Question, rule: Rule) -> Answer:
    """Guided backpropagation or deconvnet: gradients whose sign is of interest, so summed."""
    check_rule(question.network, question.config.method)

    def one(x: Image, target: Target) -> dict[str, Array]:
        found = gradients.gradient(score_of(question.network, target, rule), x)
        return {"map": jnp.abs(found[0]).max(-1), "gradient": found[0]}

    answer = heat_answer(question, one)

    def draw(outputs: PyTree, batch: Batch) -> Mapping[str, Any]:
        found = outputs["gradient"]
        limit = np.percentile(np.abs(found), 99.5, axis=(1, 2, 3), keepdims=True)
        shown = 127.5 + 127.5 * found / np.maximum(limit, 1e-12)
        pairs = [(text, question.config.method) for text in captions(question, outputs)]
        return {question.config.method: figures.pairs(batch["image"], as_pixels(shown), pairs)}

    return answer._replace(draw=draw)


def cam(question: Question) -> Answer:
    layer = last_maps(layer_shapes(question.network), question.target())

    def one(x: Image, target: Target) -> dict[str, Array]:
        return {"map": grad_cam(question.network, target, layer, x)[0]}

    return heat_answer(question, one)


def occlusion(question: Question) -> Answer:
    config, side = question.config, min(question.network.image_shape[:2])
    patch = config.patch or max(side // 6, 1)
    stride = config.stride or max(patch // 2, 1)
    if patch > side:
        raise UserError(f"--patch={patch}: is larger than the image, {side} pixels.")

    def one(x: Image, target: Target) -> dict[str, Array]:
        def probability(images: Array) -> Array:
            if not question.asks_class:
                return score_of(question.network, target)(images)
            return probability_of(question.class_scores(images), jnp.asarray(target.unit))

        found = occlude(
            probability, x, (patch, patch), (stride, stride), mean_image(question), config.chunk
        )
        return {
            "map": found.drop[0],
            "scores": found.scores[0],
            "probability_lowest": found.scores[0].min(),
        }

    answer = heat_answer(
        question,
        one,
        {"probability_lowest": f"of all places of a {patch} x {patch} patch in the mean colour"},
    )

    def draw(outputs: PyTree, batch: Batch) -> Mapping[str, Any]:
        return {
            "occlusion": figures.heat_maps(
                batch["image"], outputs["map"], captions(question, outputs), "mean fall"
            ),
            "probability": figures.heat_maps(
                batch["image"], outputs["scores"], captions(question, outputs), "with patch here"
            ),
        }

    return answer._replace(draw=draw)


def segmentation(question: Question) -> Answer:
    if question.network.image_shape[2] != 3:
        raise UserError("--method=segmentation: GrabCut tells colours apart; the model sees grey.")
    answer = saliency(question)

    def draw(outputs: PyTree, batch: Batch) -> Mapping[str, Any]:
        masks = [segment(x, heat) for x, heat in zip(batch["image"], outputs["map"], strict=True)]
        texts = captions(question, outputs)
        found: dict[str, Any] = {
            "segmentation": figures.segmentations(batch["image"], outputs["map"], masks, texts)
        }
        for i, mask in enumerate(masks):
            found[f"mask_{i}"] = 255 * mask[..., None].astype(np.uint8)
        return found

    return answer._replace(draw=draw)


def activations(question: Question) -> Answer:
    question.needs_inputs()
    shapes = layer_shapes(question.network)
    layer = question.config.layer or middle_layer(shapes, question.network.image_shape[:2])
    check_layer(layer, shapes)
    if len(shapes[layer]) != 4:
        raise UserError(f"--layer={layer}: gives vectors, not maps; --method=layers lists shapes.")

    def predict(variables: Variables, batch: Batch) -> PyTree:
        x = jnp.asarray(batch["image"], jnp.float32)
        maps = jax.lax.map(lambda one: layers_of(question.network, one[None])[layer][0], x)
        return {"maps": maps, "active": (maps > 0).mean((1, 2, 3))}

    def draw(outputs: PyTree, batch: Batch) -> Mapping[str, Any]:
        return {
            f"activations_{i}": figures.tiles(
                [*activation_tiles(maps)], f"{question.names[i]}: {layer}, strongest units first"
            )
            for i, maps in enumerate(outputs["maps"])
        }

    return Answer(
        predict=predict,
        measure=measure_all(["active"]),
        protocol={"active": f"share of values of {layer} above 0"},
        draw=draw,
    )


ANSWERS: dict[str, Callable[[Question], Answer]] = {
    "saliency": saliency,
    "smooth_grad": partial(smoothed, signed=True),
    "smooth_saliency": partial(smoothed, signed=False),
    "gradient_times_input": gradient_times_input,
    "integrated_gradients": integrated_gradients,
    "guided_backpropagation": partial(ruled, rule="guided"),
    "deconvnet": partial(ruled, rule="deconvnet"),
    "grad_cam": cam,
    "occlusion": occlusion,
    "segmentation": segmentation,
    "activations": activations,
}
