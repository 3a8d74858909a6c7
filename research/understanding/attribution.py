"""Attribution: which pixels an answer depends on. Images are worked on one at a time."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from research.errors import UserError
from research.experiment import Batch, Evaluator, Pictures, PyTree
from research.figures import understanding as figures
from research.random import stream
from research.understanding import gradients
from research.understanding.grad_cam import grad_cam as grad_cam_map
from research.understanding.looking import (
    Answer,
    Image,
    OneImage,
    asked_text,
    captions,
    each_image,
    evaluated,
    mean_image,
    measure_all,
    notes,
    score_of,
)
from research.understanding.network import layer_shapes
from research.understanding.occlusion import occlude
from research.understanding.question import Question, as_pixels, probability_of
from research.understanding.relu_rules import Rule
from research.understanding.segmentation import segment
from research.understanding.target import Target, check_rule, last_maps


def attributed(
    question: Question,
    one: OneImage,
    protocol: Mapping[str, str] | None = None,
    draw: Callable[[PyTree, Batch], Pictures] | None = None,
) -> Answer:
    """Shows the "map" [h, w] that `one` finds of each image, as heat maps by default."""

    def heat_maps(outputs: PyTree, batch: Batch) -> Pictures:
        name, texts = question.config.method, captions(question, outputs)
        return {name: figures.heat_maps(batch["image"], outputs["map"], texts, name)}

    told = {
        "probability": "softmax of the class asked about",
        "score": f"value of {asked_text(question)}",
        **(protocol or {}),
    }
    evaluator = Evaluator(told, measure_all(list(told)), draw=draw or heat_maps)
    return evaluated(question, each_image(question, one), evaluator, notes(question))


def saliency(question: Question, draw: Callable[[PyTree, Batch], Pictures] | None = None) -> Answer:
    """Shows the largest |gradient| of the score over each pixel's channels."""

    def one(x: Image, target: Target) -> dict[str, Array]:
        return {"map": gradients.saliency(score_of(question.network, target), x)[0]}

    return attributed(question, one, draw=draw)


def smooth_grad(question: Question) -> Answer:
    """Shows the size of the mean gradient of noisy copies."""
    return smoothed(question, signed=True)


def smooth_saliency(question: Question) -> Answer:
    """Shows the mean saliency of noisy copies."""
    return smoothed(question, signed=False)


def smoothed(question: Question, signed: bool) -> Answer:
    """Takes the mean over noisy copies of the gradient (signed) or of its size."""
    config = question.config
    key = stream(jax.random.key(config.seed), "smooth_grad")
    given = (key, config.samples or 32, config.noise)

    def one(x: Image, target: Target) -> dict[str, Array]:
        score = score_of(question.network, target)
        if not signed:
            return {"map": gradients.smooth_saliency(score, x, *given)[0]}
        return {"map": jnp.abs(gradients.smooth_grad(score, x, *given)[0]).max(-1)}

    return attributed(question, one)


def gradient_times_input(question: Question) -> Answer:
    """Shows gradient times (input - mean image), summed over channels."""
    baseline = mean_image(question)

    def one(x: Image, target: Target) -> dict[str, Array]:
        found = gradients.gradient_times_input(
            score_of(question.network, target), x, jnp.broadcast_to(baseline, x.shape)
        )
        return {"map": found[0].sum(-1)}

    return attributed(question, one)


def integrated_gradients(question: Question) -> Answer:
    """Shows the gradients along the line from the mean image, and how well they add up."""
    baseline, samples = mean_image(question), question.config.samples

    def one(x: Image, target: Target) -> dict[str, Array]:
        score, start = score_of(question.network, target), jnp.broadcast_to(baseline, x.shape)
        if samples:
            found = gradients.integrated_gradients(score, x, start, samples)
            points = jnp.asarray(samples)
        else:
            found, points = gradients.refined_integrated_gradients(score, x, start)
        gap = gradients.completeness_gap(score, x, found, start)
        shown = {"completeness_gap": gap[0], "points": points.astype(jnp.float32)}
        return {"map": found[0].sum(-1), **shown}

    return attributed(
        question,
        one,
        {
            "completeness_gap": "|sum of attributions - (score - score of the mean image)| / "
            "|the difference|",
            "points": "on the line from the mean image",
        },
    )


def guided_backpropagation(question: Question) -> Answer:
    """Shows gradients that ReLUs pass where they are positive and the unit is active."""
    return ruled(question, "guided")


def deconvnet(question: Question) -> Answer:
    """Shows gradients that ReLUs rectify on the way back."""
    return ruled(question, "deconvnet")


def ruled(question: Question, rule: Rule) -> Answer:
    """Shows gradients under a rule of ReLUs, whose sign is of interest."""
    check_rule(question.network, question.config.method)

    def one(x: Image, target: Target) -> dict[str, Array]:
        found = gradients.gradient(score_of(question.network, target, rule), x)
        return {"map": jnp.abs(found[0]).max(-1), "gradient": found[0]}

    def draw(outputs: PyTree, batch: Batch) -> Pictures:
        found = outputs["gradient"]
        limit = np.percentile(np.abs(found), 99.5, axis=(1, 2, 3), keepdims=True)
        shown = 127.5 + 127.5 * found / np.maximum(limit, 1e-12)
        pairs = [(text, question.config.method) for text in captions(question, outputs)]
        return {question.config.method: figures.pairs(batch["image"], as_pixels(shown), pairs)}

    return attributed(question, one, draw=draw)


def grad_cam(question: Question) -> Answer:
    """Shows the last maps before the unit, weighted by their mean gradient."""
    layer = last_maps(layer_shapes(question.network), question.target())

    def one(x: Image, target: Target) -> dict[str, Array]:
        return {"map": grad_cam_map(question.network, target, layer, x)[0]}

    return attributed(question, one)


def occlusion(question: Question) -> Answer:
    """Shows how the probability falls where a patch in the mean colour lies."""
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

    def draw(outputs: PyTree, batch: Batch) -> Pictures:
        return {
            "occlusion": figures.heat_maps(
                batch["image"], outputs["map"], captions(question, outputs), "mean fall"
            ),
            "probability": figures.heat_maps(
                batch["image"], outputs["scores"], captions(question, outputs), "with patch here"
            ),
        }

    lowest = f"of all places of a {patch} x {patch} patch in the mean colour"
    return attributed(question, one, {"probability_lowest": lowest}, draw)


def segmentation(question: Question) -> Answer:
    """Cuts the object out by GrabCut, started from saliency or Grad-CAM."""
    if question.network.image_shape[2] != 3:
        raise UserError("--method=segmentation: GrabCut tells colours apart; the model sees grey.")

    def draw(outputs: PyTree, batch: Batch) -> Pictures:
        masks = [segment(x, heat) for x, heat in zip(batch["image"], outputs["map"], strict=True)]
        texts = captions(question, outputs)
        found: dict[str, Any] = {
            "segmentation": figures.segmentations(
                batch["image"], outputs["map"], masks, texts, question.config.seeds
            )
        }
        for i, mask in enumerate(masks):
            found[f"mask_{i}"] = 255 * mask[..., None].astype(np.uint8)
        return found

    if question.config.seeds == "saliency":
        return saliency(question, draw)
    layer = last_maps(layer_shapes(question.network), question.target())

    def one(x: Image, target: Target) -> dict[str, Array]:
        found = grad_cam_map(question.network, target, layer, x)
        return {"map": jax.image.resize(found, x.shape[:3], "linear")[0]}

    return attributed(question, one, draw=draw)
