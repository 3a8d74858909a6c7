"""The methods that look at an image: nothing is trained, `predict` is the method.

Images are worked on one at a time, so memory does not grow with their number.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.errors import UserError
from research.experiment import Batch, Measures, PyTree, Variables
from research.figures import understanding as figures
from research.random import stream
from research.understanding import gradients
from research.understanding.adversarial import margin, norms, smallest_perturbation
from research.understanding.answers import (
    Answer,
    Question,
    as_pixels,
    averaged,
    probability_of,
)
from research.understanding.features import activation_tiles, area_under
from research.understanding.grad_cam import grad_cam
from research.understanding.network import (
    Network,
    Target,
    check_layer,
    check_rule,
    layer_shapes,
    layers_of,
)
from research.understanding.occlusion import occlude
from research.understanding.optimised import PROTOCOL, middle_layer
from research.understanding.relu_rules import Rule
from research.understanding.segmentation import segment

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
        found = {}
        if question.asks_class:
            scores = question.class_scores(image[None])
            unit = scores[0].argmax() if every_unit else jnp.asarray(asked.unit or 0)
            target = asked._replace(unit=unit)
            found = {"unit": unit, "probability": probability_of(scores, unit)[0]}
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
    target = question.target()
    if "unit" not in outputs:
        unit = "all units" if target.unit is None else f"unit {target.unit}"
        return [f"{target.layer}, {unit}"] * len(outputs["map"])
    return [
        f"{question.class_name(int(unit))} {float(p):.2f}"
        for unit, p in zip(outputs["unit"], outputs["probability"], strict=True)
    ]


def measure_all(names: Sequence[str]) -> Callable[[PyTree, Batch], Measures]:
    """Means over images of some outputs."""
    return lambda outputs, batch: averaged({n: outputs[n] for n in names if n in outputs})


def notes(question: Question) -> Callable[[PyTree, Batch], list[str]]:
    """A line for each input: what it was asked about."""

    def said(outputs: PyTree, batch: Batch) -> list[str]:
        texts = captions(question, outputs) if "unit" in outputs else []
        lines = [f"{name}: {text}" for name, text in zip(question.names, texts, strict=False)]
        return lines[:NOTES]

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

    told = {"probability": "softmax of the class asked about", **(protocol or {})}
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


def smooth_grad(question: Question) -> Answer:
    config = question.config
    key = stream(jax.random.key(config.seed), "smooth_grad")
    return heat_answer(
        question,
        lambda x, target: {
            "map": gradients.smooth_grad(
                score_of(question.network, target), x, key, config.samples, config.noise
            )[0]
        },
    )


def gradient_times_input(question: Question) -> Answer:
    baseline = mean_image(question)

    def one(x: Image, target: Target) -> dict[str, Array]:
        found = gradients.gradient_times_input(
            score_of(question.network, target), x, jnp.broadcast_to(baseline, x.shape)
        )
        return {"map": found[0].sum(-1)}

    return heat_answer(question, one)


def integrated_gradients(question: Question) -> Answer:
    steps = question.config.samples

    def one(x: Image, target: Target) -> dict[str, Array]:
        score, baseline = (
            score_of(question.network, target),
            jnp.broadcast_to(mean_image(question), x.shape),
        )
        found = gradients.integrated_gradients(score, x, baseline, steps)
        gap = gradients.completeness_gap(score, x, found, baseline)
        return {"map": found[0].sum(-1), "completeness_gap": gap[0]}

    return heat_answer(
        question,
        one,
        {
            "completeness_gap": "|sum of attributions - (score - score of the mean image)| / "
            f"|the difference|, {steps} points"
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


def last_maps(question: Question) -> str:
    """The last layer with maps: what Grad-CAM weights."""
    shapes = layer_shapes(question.network)
    maps = [name for name, s in shapes.items() if len(s) == 4 and s[1] * s[2] > 1]
    if not maps:
        raise UserError("--method=grad_cam: the network has no maps, only vectors.")
    return maps[-1]


def cam(question: Question) -> Answer:
    layer = last_maps(question)

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
    layer = question.config.layer or middle_layer(shapes, question.network.image_shape[0])
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


def smallest(question: Question) -> Answer:
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

    def draw(outputs: PyTree, batch: Batch) -> Mapping[str, Any]:
        before = np.asarray(batch["image"], np.float32)
        return {"smallest": figures.changes(before, outputs["image"], texts(outputs))}

    return Answer(
        predict=look(question, one),
        measure=measure_all(["found", "linf", "l2", "probability"]),
        protocol={
            "found": f"share of images that change their class within {highest:g}",
            "probability": "softmax of the class before",
            "linf": PROTOCOL["linf"] + ", not rounded; an upper bound of the smallest",
            "l2": PROTOCOL["l2"] + ", not rounded",
        },
        draw=draw,
        notes=lambda outputs, batch: [
            f"{name}: {a} -> {b}"
            for name, (a, b) in zip(question.names, texts(outputs), strict=True)
        ],
    )


SHARES = np.linspace(0.0, 1.0, 21).astype(np.float32)
RANDOM_ORDERS = 4


def deletion(question: Question) -> Answer:
    """Pixels are set to the mean image's, the most salient first; and in random orders."""
    key = stream(jax.random.key(question.config.seed), "deletion")

    def one(x: Image, target: Target) -> dict[str, Array]:
        heat = gradients.saliency(score_of(question.network, target), x)[0]
        count = heat.size

        def curve(ranks: Array) -> Array:
            def at(share: Array) -> Array:
                removed = (ranks < share * count).reshape(heat.shape)[None, ..., None]
                covered = jnp.where(removed, mean_image(question), x)
                if not question.asks_class:
                    return score_of(question.network, target)(covered)[0]
                return probability_of(question.class_scores(covered), jnp.asarray(target.unit))[0]

            return jax.lax.map(at, jnp.asarray(SHARES))

        salient = jnp.argsort(jnp.argsort(-heat.reshape(-1)))
        keys = jax.random.split(key, RANDOM_ORDERS)
        orders = jax.vmap(lambda k: jax.random.permutation(k, count))(keys)
        by_saliency, by_chance = curve(salient), jax.lax.map(curve, orders).mean(0)
        return {
            "map": heat,
            "by_saliency": by_saliency,
            "by_chance": by_chance,
            "area_saliency": area_under(by_saliency, SHARES),
            "area_random": area_under(by_chance, SHARES),
        }

    def draw(outputs: PyTree, batch: Batch) -> Mapping[str, Any]:
        lines = {
            "most salient first": outputs["by_saliency"].mean(0),
            f"at random (mean of {RANDOM_ORDERS})": outputs["by_chance"].mean(0),
        }
        return {"deletion": figures.curves(SHARES, lines, "share of pixels removed", "probability")}

    return Answer(
        predict=look(question, one),
        measure=measure_all(["area_saliency", "area_random", "probability"]),
        protocol={
            "area_saliency": "area under the probability as pixels are removed, most salient first",
            "area_random": f"the same in random order, mean of {RANDOM_ORDERS}",
            "probability": "softmax of the class asked about, nothing removed",
        },
        draw=draw,
        notes=notes(question),
    )


LEVELS = ("trained", "last layer shuffled", "upper half shuffled", "all shuffled")


def randomisation(question: Question) -> Answer:
    """Saliency and guided backpropagation while weights are shuffled, the last layers first."""
    check_rule(question.network, question.config.method)
    network = question.network
    leaves, structure = jax.tree.flatten_with_path(network.variables["params"])
    order = {name: i for i, name in enumerate(layer_shapes(network))}
    names = [jax.tree_util.keystr(path[:-1], simple=True, separator="/") for path, _ in leaves]
    known = [order.get(name, 0) for name in names]
    ranks = np.unique(known, return_inverse=True)[1]  # 0 is the first layer
    cutoffs = [ranks.max() + 1, ranks.max(), (ranks.max() + 1) // 2, 0]
    rng = np.random.default_rng(question.config.seed)
    shuffled = [rng.permutation(np.asarray(x).reshape(-1)).reshape(x.shape) for _, x in leaves]

    def variables(cutoff: Array) -> Any:
        mixed = [
            jnp.where(rank >= cutoff, other, value)
            for rank, other, (_, value) in zip(ranks, shuffled, leaves, strict=True)
        ]
        return {**network.variables, "params": jax.tree.unflatten(structure, mixed)}

    def one(x: Image, target: Target) -> dict[str, Array]:
        def maps(cutoff: Array) -> Array:
            other = network._replace(variables=variables(cutoff))
            both = [
                gradients.saliency(score_of(other, target, rule), x) for rule in ("plain", "guided")
            ]
            return jnp.concatenate(both)  # [2, H, W]

        return {"maps": jax.lax.map(maps, jnp.asarray(cutoffs)).swapaxes(0, 1)}  # [2, levels, H, W]

    def edges(image: np.ndarray) -> np.ndarray:
        grey = image.astype(np.float32).mean(-1)
        return np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))

    def score(outputs: PyTree, targets: Batch) -> dict[str, float]:
        found: dict[str, list[float]] = {}
        for maps, image in zip(outputs["maps"], question.images, strict=True):
            for kind, levels in zip(("saliency", "guided"), maps, strict=True):
                found.setdefault(f"{kind}_kept", []).append(rank_correlation(levels[0], levels[-1]))
                found.setdefault(f"{kind}_edges", []).append(
                    rank_correlation(levels[-1], edges(image))
                )
        return {name: float(np.mean(values)) for name, values in found.items()}

    def draw(outputs: PyTree, batch: Batch) -> Mapping[str, Any]:
        return {
            f"randomisation_{i}": figures.sanity(
                image, maps, edges(image), ("saliency", "guided"), LEVELS
            )
            for i, (image, maps) in enumerate(zip(batch["image"], outputs["maps"], strict=True))
        }

    return Answer(
        predict=look(question, one),
        measure=measure_all(["probability"]),
        protocol={
            "probability": "softmax of the class asked about, of the trained network",
            "saliency_kept": "rank correlation of saliency, trained and all weights shuffled",
            "guided_kept": "the same of guided backpropagation",
            "saliency_edges": "rank correlation with the image's edges (Sobel), all shuffled",
            "guided_edges": "the same of guided backpropagation",
        },
        score=score,
        draw=draw,
        notes=notes(question),
    )


def rank_correlation(
    a: Float[np.ndarray, "height width"], b: Float[np.ndarray, "height width"]
) -> float:
    """Spearman's correlation of two maps."""
    from scipy.stats import spearmanr

    return float(spearmanr(a.reshape(-1), b.reshape(-1)).statistic)


ANSWERS: dict[str, Callable[[Question], Answer]] = {
    "saliency": saliency,
    "smooth_grad": smooth_grad,
    "gradient_times_input": gradient_times_input,
    "integrated_gradients": integrated_gradients,
    "guided_backpropagation": partial(ruled, rule="guided"),
    "deconvnet": partial(ruled, rule="deconvnet"),
    "grad_cam": cam,
    "occlusion": occlusion,
    "segmentation": segmentation,
    "activations": activations,
    "smallest": smallest,
    "deletion": deletion,
    "randomisation": randomisation,
}
