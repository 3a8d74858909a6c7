"""Comparison of an image before and after a method changed it: its class, pictures."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from research.experiment import Batch, Measures, PyTree, Variables
from research.figures import understanding as figures
from research.understanding.parameterisation import Parameterisation
from research.understanding.question import Question, as_pixels, averaged, probability_of


def compared(
    question: Question,
    space: Parameterisation,
    before: np.ndarray,
    unit: Any,
    extra: Callable[[Array, Array], Mapping[str, Array]] | None = None,
) -> tuple[Callable[[Variables, Batch], PyTree], Callable[[PyTree, Batch], Measures]]:
    """Makes `predict` and `measure` of methods that change an image: its class before and after.

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
        # One image's rows are a constant, whose layers XLA would compute, slowly, as it compiles.
        old = jax.lax.optimization_barrier(jnp.asarray(before)[batch["index"]])
        first = seen(old, unit)
        then = seen(images, unit if unit is not None else first.get("top"))
        more = extra(old, images) if extra else {}
        return {"image": images, "before": first, "after": then, **more}

    def measure(outputs: PyTree, batch: Batch) -> Measures:
        shown = ("image", "before", "after", "strip")
        values = {name: x for name, x in outputs.items() if name not in shown}
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
    "l2": "Euclidean length of the change, values 0..255, rounded as a file holds them",
    "changed_pixels": "share of pixels that changed",
}


def says(question: Question) -> Callable[[PyTree, Batch], list[str]]:
    """Makes lines such as "photo.jpg: tabby 0.62 -> toaster 0.99"."""

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
    """Names the class of each image before and after."""
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
    """Makes `draw`: a figure with captions, and each image pixel for pixel.

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
