"""The methods that survey a network, or what it makes of a data set."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from research.data.source import Source
from research.errors import UserError
from research.experiment import Batch, Measures, PyTree, Variables
from research.figures import understanding as figures
from research.neighbours import Stored, nearest
from research.projection import two_coordinates
from research.spacing import some_of, spaced
from research.understanding import features
from research.understanding.answers import Answer, Question, averaged, per_unit
from research.understanding.network import inner_layers, layer_shapes, layers_of
from research.understanding.receptive_fields import receptive_fields
from research.understanding.target import check_layer, check_unit

QUERIES = 200  # images whose nearest neighbours are asked for
MOST = 1500  # images of a map
DRAWN = 6  # images whose neighbours are drawn
EMBEDDING = "outputs/embedding"  # what a network predicts that was trained for distances


def several(question: Question) -> Source:
    """The data set that is surveyed. Raises UserError where it is a single image."""
    source = question.survey()
    if len(source.examples) < 2:
        raise UserError(f"--method={question.config.method}: needs at least two images.")
    return source


def no_measures(outputs: PyTree, batch: Batch) -> Measures:
    """For methods whose numbers are of the whole split."""
    return {}


def filters(question: Question) -> Answer:
    """Kernels of one convolution."""
    kernels = {
        path: x
        for path, x in _leaves(question.network.variables["params"])
        if path.endswith("kernel") and np.ndim(x) == 4
    }
    if not kernels:
        raise UserError("--method=filters: the network has no convolution.")
    layer = question.config.layer
    if layer and f"{layer}/kernel" not in kernels:
        names = ", ".join(name.removesuffix("/kernel") for name in list(kernels)[:8])
        check_layer(layer, layer_shapes(question.network))
        raise UserError(f"--layer={layer}: is no convolution; {names}, ... are.")
    first = min(kernels, key=lambda name: _place(question, name.removesuffix("/kernel")))
    path = f"{layer}/kernel" if layer else first
    kernel = np.asarray(kernels[path], np.float32)

    def predict(variables: Variables, batch: Batch) -> PyTree:
        return {"nothing": jnp.zeros(len(batch["index"]))}

    rows, columns, inner, outer = kernel.shape
    shown = features.filter_tiles(kernel)
    title = f"{path}: {outer} filters of {rows} x {columns} on {inner} channels"
    if len(shown) < (outer if inner == 3 else inner * outer):
        title += f"; {len(shown)} slices shown"
    return Answer(
        predict=predict,
        measure=lambda outputs, batch: averaged(
            {"norm": jnp.full(len(batch["index"]), float(np.linalg.norm(kernel)))}
        ),
        protocol={"norm": f"Euclidean length of {path}"},
        draw=lambda outputs, batch: {"filters": figures.tiles(shown, title)},
        images=np.zeros((1, *question.network.image_shape), np.uint8),
    )


def _place(question: Question, layer: str) -> int:
    names = list(layer_shapes(question.network))
    return names.index(layer) if layer in names else len(names)


def _leaves(tree: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in tree.items():
        path = f"{above}/{name}" if above else name
        found += _leaves(value, path) if isinstance(value, Mapping) else [(path, value)]
    return found


def _layer(question: Question, maps: bool) -> str:
    """--layer; or the last layer with maps, or else the embedding or what classes are told by."""
    shapes = layer_shapes(question.network)
    if question.config.layer:
        check_layer(question.config.layer, shapes)
        return question.config.layer
    names = inner_layers(shapes)
    candidates = [name for name in names if len(shapes[name]) == 4]
    if maps and candidates:
        return candidates[-1]
    if EMBEDDING in shapes:
        return EMBEDDING
    return names[-2] if len(names) > 1 else names[-1]


def pictures_of(source: Source, index: Any) -> list[np.ndarray]:
    """Images of a split by their numbers."""
    return [np.asarray(source.examples[int(i)]["image"]) for i in index]


def patches(question: Question) -> Answer:
    """Cut out of the images as the unit sees them: its receptive field, exactly."""
    config, network = question.config, question.network
    layer = _layer(question, maps=True)
    shapes = layer_shapes(network)
    check_unit(config.unit, layer, shapes)
    units = [config.unit] if config.unit >= 0 else list(range(min(shapes[layer][-1], 8)))
    fields = receptive_fields(network).get(layer)
    if fields is None or len(shapes[layer]) == 3:
        raise UserError(f"--layer={layer}: has no places in the image; take a layer with maps.")
    source = question.survey()

    def predict(variables: Variables, batch: Batch) -> PyTree:
        maps = layers_of(network, jnp.asarray(batch["image"], jnp.float32))[layer]
        found = features.strongest(maps)
        return {name: x[:, jnp.asarray(units)] for name, x in found._asdict().items()}

    def draw_split(outputs: PyTree, targets: Batch) -> Mapping[str, Any]:
        cuts, titles = [], []
        for k, unit in enumerate(units):
            top = features.top_examples(outputs["value"][:, k], config.count)
            images = pictures_of(source, targets["index"][top])
            for i, image in zip(top, images, strict=True):
                place = outputs["row"][i, k], outputs["column"][i, k]
                cuts.append(features.cut(image, fields[place]))
                titles.append(f"{unit}: {float(outputs['value'][i, k]):.3g}")
        columns = min(config.count, len(targets["index"]))
        return {
            "patches": figures.tiles(cuts, f"{layer}: unit and value", columns, captions=titles)
        }

    def score(outputs: PyTree, targets: Batch) -> dict[str, float]:
        return {
            "strongest": float(outputs["value"].max()),
            "examples": float(len(outputs["value"])),
        }

    return Answer(
        predict=predict,
        measure=no_measures,
        protocol={
            "strongest": f"largest value of the units of {layer} shown",
            "examples": "images of the split",
        },
        score=score,
        draw_split=draw_split,
        survey=source,
    )


def dead_units(question: Question) -> Answer:
    network = question.network
    layer = _layer(question, maps=True)

    def predict(variables: Variables, batch: Batch) -> PyTree:
        maps = layers_of(network, jnp.asarray(batch["image"], jnp.float32))[layer]
        return {"largest": features.strongest(maps).value}

    def score(outputs: PyTree, targets: Batch) -> dict[str, float]:
        dead = features.dead_units(outputs["largest"])
        return {"dead": float(len(dead)), "units": float(outputs["largest"].shape[1])}

    def draw_split(outputs: PyTree, targets: Batch) -> Mapping[str, Any]:
        active = np.sort((outputs["largest"] > 0).mean(0))
        share = np.arange(len(active)) / max(len(active) - 1, 1)
        lines = {layer: active.astype(np.float32)}
        return {
            "dead_units": figures.curves(
                share.astype(np.float32), lines, "units, sorted", "share of images that activate it"
            )
        }

    return Answer(
        predict=predict,
        measure=no_measures,
        protocol={
            "dead": f"units of {layer} that are above 0 nowhere on any image of the split",
            "units": "of the layer",
        },
        score=score,
        draw_split=draw_split,
        survey=question.survey(),
    )


def _features(question: Question) -> tuple[str, Callable[[Variables, Batch], PyTree]]:
    """The layer that is compared, and `predict` that gives a vector of it for each image."""
    layer = _layer(question, maps=False)

    def predict(variables: Variables, batch: Batch) -> PyTree:
        x = jnp.asarray(batch["image"], jnp.float32)
        return {"features": per_unit(layers_of(question.network, x)[layer])}

    return layer, predict


def neighbours(question: Question) -> Answer:
    """Who is alike in features, and who in pixels; pictures are read again, a block at a time."""
    source, config = several(question), question.config
    layer, predict = _features(question)

    def found(outputs: PyTree, targets: Batch) -> dict[str, np.ndarray]:
        total = len(targets["index"])
        queries = spaced(total, QUERIES)

        def read(start: int, stop: int) -> np.ndarray:
            return np.stack(pictures_of(source, targets["index"][start:stop]))

        vectors = np.asarray(outputs["features"], np.float32)
        count = min(config.count, total - 1)
        own = np.stack(pictures_of(source, targets["index"][queries])).astype(np.float32)
        own = own.reshape(len(queries), -1)
        return {  # nobody is their own neighbour
            "features": nearest(vectors[queries], vectors, count, others=queries)[1],
            "pixels": nearest(own, Stored(read, total), count, others=queries)[1],
        }

    def score(outputs: PyTree, targets: Batch) -> dict[str, float]:
        if "label" not in targets:
            return {}
        labels = np.asarray(targets["label"])
        own = labels[spaced(len(labels), QUERIES)]
        return {
            f"same_class_{name}": float((labels[index[:, 0]] == own).mean())
            for name, index in found(outputs, targets).items()
        }

    def draw_split(outputs: PyTree, targets: Batch) -> Mapping[str, Any]:
        drawn = {}
        for name, index in found(outputs, targets).items():
            queries = spaced(len(targets["index"]), QUERIES)
            rows = [[queries[i], *index[i]] for i in spaced(len(index), DRAWN)]
            chosen = [image for row in rows for image in pictures_of(source, targets["index"][row])]
            title = f"first column: image; then its nearest by {name}"
            title += f" ({layer})" if name == "features" else ""
            drawn[f"neighbours_{name}"] = figures.tiles(chosen, title, columns=len(rows[0]))
        return drawn

    asked = some_of(len(source.examples), QUERIES)
    return Answer(
        predict=predict,
        measure=no_measures,
        protocol={
            "same_class_features": f"share whose nearest by {layer} is of their class; {asked}",
            "same_class_pixels": f"the same by pixels; {asked}",
        },
        score=score,
        draw_split=draw_split,
        survey=source,
    )


def plane(question: Question) -> Answer:
    """PCA or t-SNE of the features, with thumbnails."""
    source, config = several(question), question.config
    layer, predict = _features(question)

    def draw_split(outputs: PyTree, targets: Batch) -> Mapping[str, Any]:
        shown = spaced(len(outputs["features"]), MOST)
        vectors = np.asarray(outputs["features"], np.float32)[shown]
        places, how = two_coordinates(vectors, config.map, config.seed)
        images = pictures_of(source, targets["index"][shown])
        title = f"{how}: {layer}, {some_of(len(outputs['features']), MOST)}"
        return {f"map_{config.map}": figures.thumbnails(places, images, title)}

    return Answer(
        predict=predict,
        measure=no_measures,
        protocol={
            "examples": f"images of the split; on the map: {some_of(len(source.examples), MOST)}"
        },
        score=lambda outputs, targets: {"examples": float(len(outputs["features"]))},
        draw_split=draw_split,
        survey=source,
    )


ANSWERS: dict[str, Callable[[Question], Answer]] = {
    "filters": filters,
    "patches": patches,
    "dead_units": dead_units,
    "neighbours": neighbours,
    "map": plane,
}
