"""Effects of initialisation on signals: statistics of every layer's activations and gradients.

Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
2010; He et al., "Delving deep into rectifiers", 2015.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from rich.table import Column, Table

from research import models
from research.experiment import Experiment, PyTree, Variables
from research.figures import activations as figures
from research.losses.classification import softmax_cross_entropy
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.forward import forward
from research.nn.initialisers import INITIALISERS
from research.record.report import Report
from research.training.config import ModelConfig

# A unit whose nonlinearity is flatter than this passes hardly any gradient on.
FLAT = 0.05


class LayerStatistics(NamedTuple):
    """Statistics of one layer, over a batch; all but the last are of what it passes on.

    That is what its nonlinearity gives, where one is applied before the next layer with a kernel,
    and else its own output.

    Attributes:
      layer: its path, as "layer1_0/conv1".
      mean, std: over all examples, positions and units.
      saturated: share of the values where the nonlinearity is flat (|slope| < FLAT); NaN without
        one. Of ReLU these are its zeros.
      dead: share of the units that are flat for every example and position; NaN as well.
      gradient: Euclidean norm of the loss's gradient with respect to the kernel.
    """

    layer: str
    mean: float
    std: float
    saturated: float
    dead: float
    gradient: float


def layer_statistics(
    model: nn.Module,
    variables: Variables,
    inputs: Float[Array, "batch *shape"],
    loss: Callable[[Array], Float[Array, " batch"]],
    activation: Activation,
    key: jax.Array,
) -> tuple[float, list[LayerStatistics]]:
    """Runs one batch forward and back, as in training, and looks at every layer with a kernel.

    Args:
      model: takes its nonlinearity as the attribute `activation`; so every use of it is seen, of
        functional and of shared ones too.
      loss: outputs -> the loss of each example.
      activation: the nonlinearity to run with.

    Returns:
      The mean loss, and the layers in the order in which they are called.
    """
    layers: list[str] = []  # paths; filled while JAX traces, once

    @jax.jit
    def run(variables: Variables) -> tuple[Array, PyTree, list[dict[str, Array]]]:
        def mean_loss(params: PyTree) -> tuple[Array, list[dict[str, Array]]]:
            seen: list[dict[str, Array]] = []

            def watch_layer(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
                output = call(*args, **kwargs)
                module = context.module
                if context.method_name == "__call__" and module.has_variable("params", "kernel"):
                    layers.append("/".join(module.path))
                    seen.append(_statistics(output, None))
                return output

            def watched(x: Array) -> Array:
                output, slope = jax.jvp(activation, (x,), (jnp.ones_like(x),))
                if seen:  # a network may begin with a nonlinearity
                    seen[-1] = _statistics(output, slope)
                return output

            with nn.intercept_methods(watch_layer):
                outputs, _ = forward(
                    model.clone(activation=watched),
                    {**variables, "params": params},
                    inputs,
                    train=True,
                    key=key,
                )
            return loss(outputs).mean(), jax.lax.stop_gradient(seen)

        layers.clear()
        (value, seen), gradients = jax.value_and_grad(mean_loss, has_aux=True)(variables["params"])
        return value, gradients, seen

    value, gradients, seen = jax.device_get(run(variables))
    return float(value), [
        LayerStatistics(
            layer=path,
            **{name: float(number) for name, number in row.items()},
            gradient=float(np.linalg.norm(_kernel(gradients, path))),
        )
        for path, row in zip(layers, seen, strict=True)
    ]


def _statistics(x: Array, slope: Array | None) -> dict[str, Array]:
    row = {"mean": x.mean(), "std": x.std()}
    if slope is None:
        return {**row, "saturated": jnp.float32(jnp.nan), "dead": jnp.float32(jnp.nan)}
    flat = jnp.abs(slope) < FLAT
    return {**row, "saturated": flat.mean(), "dead": flat.all(range(x.ndim - 1)).mean()}


def _kernel(tree: PyTree, path: str) -> np.ndarray:
    for name in path.split("/"):
        tree = tree[name]
    return tree["kernel"].ravel()


COMPARED_INITIALISERS = ("zeros", "normal", "unit", "xavier", "he")
COMPARED_ACTIVATIONS = ("tanh", "relu")


def compare(
    make: Callable[..., nn.Module],
    inputs: Float[Array, "batch *shape"],
    loss: Callable[[Array], Float[Array, " batch"]],
    initialisers: Sequence[str] = COMPARED_INITIALISERS,
    activations: Sequence[str] = COMPARED_ACTIVATIONS,
    seed: int = 0,
) -> Report:
    """Compares layer statistics of fresh networks, one for each initialiser and nonlinearity.

    Args:
      make: takes `kernel_init` and `activation`.
      inputs, loss: as for `layer_statistics`.
    """
    rows = []
    init_key, run_key = jax.random.split(jax.random.key(seed))
    for name in activations:
        activation = ACTIVATIONS[name]
        for initialiser in initialisers:
            model = make(kernel_init=INITIALISERS[initialiser], activation=activation)
            variables = jax.jit(model.init)(init_key, inputs)
            value, layers = layer_statistics(model, variables, inputs, loss, activation, run_key)
            rows += [
                {"activation": name, "initialiser": initialiser, "depth": depth, "loss": value}
                | layer._asdict()
                for depth, layer in enumerate(layers, 1)
            ]
    return Report(rows, table(rows), {"signals": figures.signals(rows)})


def of_classifier(options: ModelConfig, experiment: Experiment, seed: int) -> Report:
    """Compares fresh classifiers on the first batch of their training data.

    Args:
      options: --initializer and --activation, where they are given, are the only ones compared.
      experiment: built of the same options.
    """
    batch = experiment.data().train.batch(0)
    classes = len(experiment.facts["class_names"])
    targets = jax.nn.one_hot(batch["label"], classes)
    entry = models.available()[options.model]
    attributes = models.attributes(entry, options.model_options)
    return compare(
        functools.partial(entry.make, **attributes, num_classes=classes),
        experiment.network.see(batch),
        lambda logits: softmax_cross_entropy(logits, targets),
        (options.initializer,) if options.initializer else COMPARED_INITIALISERS,
        (options.activation,) if options.activation else COMPARED_ACTIVATIONS,
        seed,
    )


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Shows each network's first, middle and last hidden layer; its last layer gives the loss."""
    shown = Table(
        "activation",
        "initialiser",
        "depth",
        "layer",
        *(Column(name, justify="right") for name in ("mean", "std", "saturated", "dead")),
        Column("gradient", justify="right"),
        Column("loss", justify="right"),
        box=None,
    )
    networks: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        networks.setdefault((row["activation"], row["initialiser"]), []).append(row)
    for (activation, initialiser), layers in networks.items():
        last = len(layers) - 2 if len(layers) > 1 else 0
        for number in sorted({0, last // 2, last}):
            row = layers[number]
            shares = ["-" if row[n] != row[n] else f"{row[n]:.0%}" for n in ("saturated", "dead")]
            shown.add_row(
                *((activation, initialiser) if number == 0 else ("", "")),
                str(row["depth"]),
                row["layer"],
                f"{row['mean']:.2g}",
                f"{row['std']:.2g}",
                *shares,
                f"{row['gradient']:.2g}",
                f"{row['loss']:.4g}" if number == 0 else "",
            )
    return shown
