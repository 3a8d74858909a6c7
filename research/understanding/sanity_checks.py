"""Sanity checks of attributions: pixels removed in their order, weights shuffled."""

from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.experiment import Batch, Evaluator, Pictures, PyTree
from research.figures import understanding as figures
from research.random import stream
from research.understanding import gradients
from research.understanding.features import area_under
from research.understanding.looking import (
    Answer,
    Image,
    each_image,
    evaluated,
    mean_image,
    measure_all,
    notes,
    score_of,
)
from research.understanding.network import layer_shapes
from research.understanding.question import Question, probability_of
from research.understanding.target import Target, check_rule

SHARES = np.linspace(0.0, 1.0, 21).astype(np.float32)
RANDOM_ORDERS = 4


def deletion(question: Question) -> Answer:
    """Sets pixels to the mean image's, the most salient first; and in random orders."""
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

    def draw(outputs: PyTree, batch: Batch) -> Pictures:
        lines = {
            "most salient first": outputs["by_saliency"].mean(0),
            f"at random (mean of {RANDOM_ORDERS})": outputs["by_chance"].mean(0),
        }
        return {"deletion": figures.curves(SHARES, lines, "share of pixels removed", "probability")}

    protocol = {
        "area_saliency": "area under the probability as pixels are removed, most salient first",
        "area_random": f"the same in random order, mean of {RANDOM_ORDERS}",
        "probability": "softmax of the class asked about, nothing removed",
    }
    evaluator = Evaluator(protocol, measure_all(list(protocol)), draw=draw)
    return evaluated(question, each_image(question, one), evaluator, notes(question))


LEVELS = ("trained", "last layer shuffled", "upper half shuffled", "all shuffled")


def randomisation(question: Question) -> Answer:
    """Shows both gradients while weights are shuffled, the last layers first."""
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

    def draw(outputs: PyTree, batch: Batch) -> Pictures:
        return {
            f"randomisation_{i}": figures.sanity(
                image, maps, edges(image), ("saliency", "guided"), LEVELS
            )
            for i, (image, maps) in enumerate(zip(batch["image"], outputs["maps"], strict=True))
        }

    protocol = {
        "probability": "softmax of the class asked about, of the trained network",
        "saliency_kept": "rank correlation of saliency, trained and all weights shuffled",
        "guided_kept": "the same of guided backpropagation",
        "saliency_edges": "rank correlation with the image's edges (Sobel), all shuffled",
        "guided_edges": "the same of guided backpropagation",
    }
    evaluator = Evaluator(protocol, measure_all(["probability"]), score=score, draw=draw)
    return evaluated(question, each_image(question, one), evaluator, notes(question))


def rank_correlation(
    a: Float[np.ndarray, "height width"], b: Float[np.ndarray, "height width"]
) -> float:
    """Computes Spearman's correlation of two maps; 0 where one is the same everywhere."""
    from scipy.stats import spearmanr

    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a.reshape(-1), b.reshape(-1)).statistic)
