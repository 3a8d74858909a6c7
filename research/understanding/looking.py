"""Shared steps of the methods that only look: nothing is trained, `predict` is the method."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.data.sources.examples import Arrays
from research.data.sources.source import Source
from research.experiment import Batch, Evaluation, Evaluator, Measures, PyTree, Variables
from research.record.report import Report, metrics_report
from research.spacing import spaced
from research.training import parallel as parallel_lib
from research.training.evaluation import make_evaluate, pictures_of, report_of
from research.understanding import gradients
from research.understanding.network import ImageNetwork, layers_of
from research.understanding.question import Question, averaged, probability_of
from research.understanding.target import Target

NOTES = 16  # lines of notes, at most
Image = Float[Array, "1 height width channel"]
# (image, target) -> {name: array of this image, without the leading 1}
OneImage = Callable[[Image, Target], dict[str, Array]]
# The work of a method, which `Look.report` does.
Answer = Callable[[], Report]


def evaluated(
    question: Question,
    predict: Callable[[Variables, Batch], PyTree],
    evaluator: Evaluator,
    notes: Callable[[PyTree, Batch], list[str]] | None = None,
    source: Source | None = None,
) -> Answer:
    """Returns what makes the report of `predict` on the images, or on a data set.

    Args:
      source: the data set; None: the question's images.
    """
    config = question.config
    parallel = parallel_lib.create(config.parallel, config.batch_size)
    evaluator = evaluator._replace(protocol=question.told(evaluator.protocol))
    evaluation = Evaluation(predict, {config.method: evaluator}, notes=notes)
    evaluate = make_evaluate(evaluation, parallel)
    if source is None:
        images = question.images
        split, source = "inputs", Source(Arrays({"image": images}), len(images))
    else:
        split = "data"

    def report() -> Report:
        results = {split: evaluate({}, source, details=True)}
        found = report_of(evaluation, results)
        drawn = pictures_of(evaluation, results)
        return metrics_report(found["metrics"], found["protocol"], drawn, found["notes"])

    return report


def each_image(question: Question, one: OneImage) -> Callable[[Variables, Batch], PyTree]:
    """Makes `predict` of one image after the other, so that memory does not grow with their number.

    Its outputs are the unit that is asked about, the most probable class by default, its
    probability or score, and the arrays that `one` gives.
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


def score_of(network: ImageNetwork, target: Target, rule: Any = None) -> gradients.Score:
    """Returns the target's value as a function of images."""
    return lambda images: target.value(layers_of(network, images, rule=rule))


def mean_image(question: Question) -> Float[Array, " channel"]:
    """Returns the image that stands for nothing: a value for each channel."""
    return jnp.asarray(question.mean, jnp.float32)


def captions(question: Question, outputs: PyTree) -> list[str]:
    """Names the class that each image is asked about, with its probability."""
    if "unit" not in outputs:
        return [asked_text(question)] * len(outputs["map"])
    return [
        f"{question.class_name(int(unit))} {float(p):.2f}"
        for unit, p in zip(outputs["unit"], outputs["probability"], strict=True)
    ]


def asked_text(question: Question) -> str:
    """Names the unit that is asked about, if it is no class."""
    target, network = question.target(), question.network
    if target.unit is None:
        return f"{target.layer}, mean of all units"
    if target.layer == network.class_layer:
        return f"{network.class_names[int(target.unit)]!r} in {target.layer}"
    return f"{target.layer}, unit {target.unit}"


def measure_all(names: Sequence[str]) -> Callable[[PyTree, Batch], Measures]:
    """Makes a measure that averages some outputs over images."""
    return lambda outputs, batch: averaged({n: outputs[n] for n in names if n in outputs})


def notes(question: Question) -> Callable[[PyTree, Batch], list[str]]:
    """Makes a line for each input: what it was asked about."""

    def said(outputs: PyTree, batch: Batch) -> list[str]:
        texts = captions(question, outputs) if "unit" in outputs else []
        lines = [f"{name}: {text}" for name, text in zip(question.names, texts, strict=False)]
        return [lines[i] for i in spaced(len(lines), NOTES)]

    return said
