"""A network seen from outside: the value of every layer, by name, while any function of it runs.

Flax lets us step in between the calls of its modules. So a layer can be read, changed, or given
another gradient without a line of the model knowing, whether it classifies or detects, and however
deep in an experiment's `predict` it is applied.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core.tracers import current_trace
from jaxtyping import Array, Float

from research.experiment import Variables
from research.nn.activations import ACTIVATIONS, Activation
from research.understanding.relu_rules import RECTIFIERS, Rule, with_rule

Layers = dict[str, Array]
Change = Callable[[Array], Array]
Images = Float[Array, "batch height width channel"]
Scores = Float[Array, " batch"]


class ImageNetwork(NamedTuple):
    """A trained network, frozen.

    Attributes:
      apply: (variables, images [B, H, W, C] of values 0..255) -> what the experiment predicts.
      class_names: in the order of the outputs; empty where it knows no classes.
      image_shape: height, width and channels of the images it was trained on.
      class_layer: whose units the names are; "": the last layer with a unit for each.
      exclusive: whether one of them is the answer, so that the others are not.
    """

    apply: Callable[[Variables, Images], Any]
    variables: Variables
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    class_layer: str = ""
    exclusive: bool = True

    def outputs(self, images: Images) -> Any:
        """Predicts what the experiment says of images."""
        return self.apply(self.variables, images)


def observe(
    function: Callable[..., Any],
    *arguments: Any,
    rule: Rule | None = None,
    changes: Mapping[str, Change] | None = None,
) -> tuple[Any, Layers]:
    """Runs a function that applies Flax models, and notes what all their layers give.

    A layer is named by the path of its module, "layer1_0/conv1"; what the activation function that
    a module takes as an argument gives is "layer1_0/activation". Further calls of the same are
    "layer1_0/activation#2", and so on. Layers inside loops (a scan, say) are left out: they have
    no single value.

    Args:
      rule: how gradients go back through ReLU and ReLU6 where a model has it as an argument.
      changes: layer -> what is put in the place of its value.

    Returns:
      What the function returns, and {name: array}, in the order of computation.
    """
    layers: Layers = {}
    running: set[str] = set()
    outside = current_trace()

    def note(name: str, value: Any) -> Any:
        if not isinstance(value, jax.Array) or value.ndim < 2 or current_trace() != outside:
            return value
        count = 1 + sum(known.partition("#")[0] == name for known in layers)
        name = name if count == 1 else f"{name}#{count}"
        if changes and name in changes:
            value = changes[name](value)
        layers[name] = value
        return value

    def interceptor(
        call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        path = "/".join(context.module.path)
        if context.method_name != "__call__" or path in running:  # by its subclass
            return call(*args, **kwargs)
        running.add(path)
        with _activations(context.module, path, note, rule):
            value = call(*args, **kwargs)
        running.remove(path)
        does_nothing = bool(args) and value is args[0]  # dropout in evaluation
        return note(path, value) if path and not does_nothing else value

    with nn.intercept_methods(interceptor):
        return function(*arguments), layers


@contextmanager
def _activations(
    module: nn.Module, path: str, note: Callable[[str, Any], Any], rule: Rule | None
) -> Iterator[None]:
    """Observes a module's activation functions while it runs, and lets them follow the rule."""
    originals = {}
    for field in getattr(module, "__dataclass_fields__", {}):
        function = getattr(module, field, None)
        # A module gets its activation function from the module around it, observed already.
        plain = getattr(function, "observed", function)
        if any(plain is known for known in ACTIVATIONS.values()):
            originals[field] = function
            name = f"{path}/{field}" if path else field
            # Flax freezes modules; this one is a copy made for the call, and put right after it.
            object.__setattr__(module, field, _observed(plain, name, note, rule))
    try:
        yield
    finally:
        for field, function in originals.items():
            object.__setattr__(module, field, function)


def _observed(
    plain: Any, name: str, note: Callable[[str, Any], Any], rule: Rule | None
) -> Activation:
    ruled = with_rule(plain, rule) if rule and plain in RECTIFIERS else plain

    def activation(x: Array) -> Array:
        return note(name, ruled(x))

    activation.observed = plain  # type: ignore[attr-defined]
    return activation


def layers_of(network: ImageNetwork, images: Images, **options: Any) -> Layers:
    """Returns {name: value} of all layers and of what is predicted; options: see `observe`.

    Predictions of the experiment are "outputs" or "outputs/NAME", such as "outputs/embedding" and a
    caption's "outputs/log_probability", if they are of floating point.
    """
    outputs, layers = observe(network.outputs, images, **options)
    for path, value in jax.tree_util.tree_flatten_with_path(outputs)[0]:
        if jnp.issubdtype(value.dtype, jnp.floating) and value.ndim:
            name = "/".join(["outputs", jax.tree_util.keystr(path, simple=True, separator="/")])
            layers[name.rstrip("/")] = value[:, None] if value.ndim == 1 else value
    return layers


def inner_layers(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Lists the layers without what is predicted, which is only asked about by its name."""
    return [name for name in shapes if not name.startswith("outputs")]


def layer_shapes(
    network: ImageNetwork, size: Sequence[int] | None = None
) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every layer for one image, worked out without computing anything."""
    shape = (1, *(size or network.image_shape[:2]), network.image_shape[2])
    names: list[str] = []  # JAX would sort the names of a dictionary

    def values(images: Images) -> list[Array]:
        layers = layers_of(network, images)
        names[:] = layers
        return list(layers.values())

    found = jax.eval_shape(values, jax.ShapeDtypeStruct(shape, jnp.float32))
    return {name: value.shape for name, value in zip(names, found, strict=True)}
