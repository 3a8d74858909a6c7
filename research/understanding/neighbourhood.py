"""Places of images in a network's feature space: nearest neighbours, and a map of all."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from research.data.sources.source import Source
from research.errors import UserError
from research.experiment import Batch, Evaluator, Pictures, PyTree, Variables
from research.figures import understanding as figures
from research.spacing import some_of, spaced
from research.understanding.looking import Answer, evaluated
from research.understanding.network import layers_of
from research.understanding.question import Question, per_unit
from research.understanding.units import chosen_layer, images_of
from research.vectors.neighbours import StoredVectors, nearest
from research.vectors.projection import two_coordinates

QUERIES = 200  # images whose nearest neighbours are asked for
MOST = 1500  # images of a map
DRAWN = 6  # images whose neighbours are drawn


def several(question: Question) -> Source:
    """Opens the data set that is surveyed. Raises UserError for a single image."""
    source = question.survey()
    if len(source.examples) < 2:
        raise UserError(f"--method={question.config.method}: needs at least two images.")
    return source


def _features(question: Question) -> tuple[str, Callable[[Variables, Batch], PyTree]]:
    """Returns the layer that is compared, and `predict` that gives a vector of it an image."""
    layer = chosen_layer(question, maps=False)

    def predict(variables: Variables, batch: Batch) -> PyTree:
        x = jnp.asarray(batch["image"], jnp.float32)
        return {"features": per_unit(layers_of(question.network, x)[layer])}

    return layer, predict


def neighbours(question: Question) -> Answer:
    """Finds images that are alike in features, and in pixels.

    Pictures are read again, a block at a time.
    """
    source, config = several(question), question.config
    layer, predict = _features(question)

    def found(
        outputs: PyTree, targets: Batch, queries: Int[np.ndarray, " query"]
    ) -> dict[str, np.ndarray]:
        total = len(targets["index"])

        def read(start: int, stop: int) -> np.ndarray:
            return np.stack(images_of(source, targets["index"][start:stop]))

        vectors = np.asarray(outputs["features"], np.float32)
        count = min(config.count, total - 1)
        own = np.stack(images_of(source, targets["index"][queries])).astype(np.float32)
        own = own.reshape(len(queries), -1)
        return {  # nobody is their own neighbour
            "features": nearest(vectors[queries], vectors, count, others=queries)[1],
            "pixels": nearest(own, StoredVectors(read, total), count, others=queries)[1],
        }

    def score(outputs: PyTree, targets: Batch) -> dict[str, float]:
        if "label" not in targets:
            return {}
        labels = np.asarray(targets["label"])
        queries = spaced(len(labels), QUERIES)
        return {
            f"same_class_{name}": float((labels[index[:, 0]] == labels[queries]).mean())
            for name, index in found(outputs, targets, queries).items()
        }

    def draw_split(outputs: PyTree, targets: Batch) -> Pictures:
        drawn = {}
        every = spaced(len(targets["index"]), QUERIES)
        queries = every[spaced(len(every), DRAWN)]
        for name, index in found(outputs, targets, queries).items():
            rows = np.column_stack([queries, index])
            chosen = [image for row in rows for image in images_of(source, targets["index"][row])]
            title = f"first column: image; then its nearest by {name}"
            title += f" ({layer})" if name == "features" else ""
            drawn[f"neighbours_{name}"] = figures.tiles(chosen, title, columns=len(rows[0]))
        return drawn

    asked = some_of(len(source.examples), QUERIES)
    protocol = {
        "same_class_features": f"share whose nearest by {layer} is of their class; {asked}",
        "same_class_pixels": f"the same by pixels; {asked}",
    }
    evaluator = Evaluator(protocol, score=score, draw_split=draw_split)
    return evaluated(question, predict, evaluator, source=source)


def plane(question: Question) -> Answer:
    """Lays images out on a plane by PCA or t-SNE of their features."""
    source, config = several(question), question.config
    layer, predict = _features(question)

    def draw_split(outputs: PyTree, targets: Batch) -> Pictures:
        shown = spaced(len(outputs["features"]), MOST)
        vectors = np.asarray(outputs["features"], np.float32)[shown]
        places, how = two_coordinates(vectors, config.map, config.seed)
        images = images_of(source, targets["index"][shown])
        title = f"{how}: {layer}, {some_of(len(outputs['features']), MOST)}"
        return {f"map_{config.map}": figures.thumbnails(places, images, title)}

    protocol = {
        "examples": f"images of the split; on the map: {some_of(len(source.examples), MOST)}"
    }
    evaluator = Evaluator(
        protocol,
        score=lambda outputs, targets: {"examples": float(len(outputs["features"]))},
        draw_split=draw_split,
    )
    return evaluated(question, predict, evaluator, source=source)
