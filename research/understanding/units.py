"""Units of a layer: their filters, their maps, what excites them most, and what never does."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.data.sources.source import Source
from research.errors import UserError
from research.experiment import Batch, Evaluator, Pictures, PyTree, Variables
from research.figures import understanding as figures
from research.record.report import Report, metrics_report
from research.understanding import features, gradients
from research.understanding.looking import Answer, evaluated, measure_all
from research.understanding.network import inner_layers, layer_shapes, layers_of
from research.understanding.question import Question
from research.understanding.receptive_fields import receptive_fields
from research.understanding.target import check_layer, check_rule, check_unit, middle_layer

EMBEDDING = "outputs/embedding"  # what a network predicts that was trained for distances


def chosen_layer(question: Question, maps: bool) -> str:
    """Chooses --layer, or the last layer with maps, or the embedding or the last hidden layer."""
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


def images_of(source: Source, index: Any) -> list[np.ndarray]:
    """Reads images of a split by their numbers."""
    return [np.asarray(source.examples[int(i)]["image"]) for i in index]


def filters(question: Question) -> Answer:
    """Shows the kernels of one convolution."""
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

    rows, columns, inner, outer = kernel.shape
    shown = features.filter_tiles(kernel)
    title = f"{path}: {outer} filters of {rows} x {columns} on {inner} channels"
    if len(shown) < (outer if inner == 3 else inner * outer):
        title += f"; {len(shown)} slices shown"

    def report() -> Report:
        return metrics_report(
            {"inputs/norm": float(np.linalg.norm(kernel))},
            {"norm": f"Euclidean length of {path}"},
            {"inputs/filters": figures.tiles(shown, title)},
        )

    return report


def _place(question: Question, layer: str) -> int:
    names = list(layer_shapes(question.network))
    return names.index(layer) if layer in names else len(names)


def _leaves(tree: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in tree.items():
        path = f"{above}/{name}" if above else name
        found += _leaves(value, path) if isinstance(value, Mapping) else [(path, value)]
    return found


def activations(question: Question) -> Answer:
    """Shows the maps of a layer's strongest units for each image."""
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

    def draw(outputs: PyTree, batch: Batch) -> Pictures:
        return {
            f"activations_{i}": figures.tiles(
                [*features.activation_tiles(maps)],
                f"{question.names[i]}: {layer}, strongest units first",
            )
            for i, maps in enumerate(outputs["maps"])
        }

    protocol = {"active": f"share of values of {layer} above 0"}
    evaluator = Evaluator(protocol, measure_all(["active"]), draw=draw)
    return evaluated(question, predict, evaluator)


def patches(question: Question) -> Answer:
    """Shows the parts of images that most excite a unit, cut to its exact receptive field."""
    config, network = question.config, question.network
    layer = chosen_layer(question, maps=True)
    shapes = layer_shapes(network)
    check_unit(config.unit, layer, shapes)
    units = [config.unit] if config.unit >= 0 else list(range(min(shapes[layer][-1], 8)))
    fields = receptive_fields(network).get(layer)
    if fields is None or len(shapes[layer]) == 3:
        raise UserError(f"--layer={layer}: has no places in the image; take a layer with maps.")
    source = question.survey()
    rule = "guided" if config.explain == "guided_backpropagation" else None
    if rule:
        check_rule(network, config.explain)

    @jax.jit
    def explained(image: jax.Array, row: Any, column: Any, unit: Any) -> jax.Array:
        """Computes the gradient of one place of a unit's map, in the image."""
        score = lambda x: layers_of(network, x, rule=rule)[layer][:, row, column, unit]
        return gradients.gradient(score, image[None])[0]

    def predict(variables: Variables, batch: Batch) -> PyTree:
        maps = layers_of(network, jnp.asarray(batch["image"], jnp.float32))[layer]
        found = features.strongest(maps)
        return {name: x[:, jnp.asarray(units)] for name, x in found._asdict().items()}

    def draw_split(outputs: PyTree, targets: Batch) -> Pictures:
        cuts, titles = [], []
        for k, unit in enumerate(units):
            top = features.top_examples(outputs["value"][:, k], config.count)
            images = images_of(source, targets["index"][top])
            for i, image in zip(top, images, strict=True):
                place = outputs["row"][i, k], outputs["column"][i, k]
                patch = features.cut(image, fields[place])
                if config.explain:
                    pixels = jnp.asarray(image, jnp.float32)
                    of_pixels = np.asarray(explained(pixels, *place, unit))
                    shown = figures.signed_pixels(features.cut(of_pixels, fields[place]))
                    patch = np.concatenate([patch, shown])  # below the patch
                cuts.append(patch)
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

    protocol = {
        "strongest": f"largest value of the units of {layer} shown",
        "examples": "images of the split",
    }
    evaluator = Evaluator(protocol, score=score, draw_split=draw_split)
    return evaluated(question, predict, evaluator, source=source)


def dead_units(question: Question) -> Answer:
    """Counts the units of a layer that no image of a data set activates."""
    network = question.network
    layer = chosen_layer(question, maps=True)

    def predict(variables: Variables, batch: Batch) -> PyTree:
        maps = layers_of(network, jnp.asarray(batch["image"], jnp.float32))[layer]
        return {"largest": features.strongest(maps).value}

    def score(outputs: PyTree, targets: Batch) -> dict[str, float]:
        dead = features.dead_units(outputs["largest"])
        return {"dead": float(len(dead)), "units": float(outputs["largest"].shape[1])}

    def draw_split(outputs: PyTree, targets: Batch) -> Pictures:
        active = np.sort((outputs["largest"] > 0).mean(0))
        share = np.arange(len(active)) / max(len(active) - 1, 1)
        lines = {layer: active.astype(np.float32)}
        return {
            "dead_units": figures.curves(
                share.astype(np.float32), lines, "units, sorted", "share of images that activate it"
            )
        }

    protocol = {
        "dead": f"units of {layer} that are above 0 nowhere on any image of the split",
        "units": "of the layer",
    }
    evaluator = Evaluator(protocol, score=score, draw_split=draw_split)
    return evaluated(question, predict, evaluator, source=question.survey())
