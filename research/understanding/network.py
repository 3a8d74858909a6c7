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

from research.errors import UserError, nearest
from research.experiment import Variables
from research.nn.activations import ACTIVATIONS, Activation
from research.understanding.relu_rules import RECTIFIERS, Rule, with_rule

Layers = dict[str, Array]
Change = Callable[[Array], Array]
Images = Float[Array, "batch height width channel"]
Scores = Float[Array, " batch"]


class Network(NamedTuple):
    """A trained network, frozen.

    Attributes:
      apply: (variables, images [B, H, W, C] of values 0..255) -> what the experiment predicts.
      class_names: in the order of the outputs; empty where it knows no classes.
      image_shape: height, width and channels of the images it was trained on.
    """

    apply: Callable[[Variables, Images], Any]
    variables: Variables
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]

    def outputs(self, images: Images) -> Any:
        """What the experiment predicts of images."""
        return self.apply(self.variables, images)


class Target(NamedTuple):
    """What is asked about: a unit of a layer.

    Attributes:
      layer: its name.
      unit: the channel, which may be traced; None for all of the layer.
      centre: whether a map's central place counts alone, or the mean over all places.
    """

    layer: str
    unit: int | Array | None
    centre: bool = False

    def value(self, layers: Mapping[str, Array]) -> Scores:
        """The unit's value for each image: before softmax where it is a class (a score)."""
        x = layers[self.layer]  # [B, C] or [B, h, w, C]
        if x.ndim == 4:
            x = x[:, x.shape[1] // 2, x.shape[2] // 2] if self.centre else x.mean((1, 2))
        x = x.reshape(len(x), -1, x.shape[-1]).mean(1)
        return x.mean(-1) if self.unit is None else x[:, self.unit]

    def probability(self, layers: Mapping[str, Array]) -> Scores:
        """Softmax over the layer's units, at each place of a map, then the mean over places."""
        x = jax.nn.softmax(layers[self.layer], axis=-1)
        return self.value({self.layer: x})


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
    """While a module runs, its activation functions are observed, and follow the rule."""
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


def layers_of(network: Network, images: Images, **options: Any) -> Layers:
    """{name: value} of all layers, and of what is predicted; options are those of `observe`.

    What the experiment predicts is "outputs" or "outputs/NAME", such as "outputs/embedding" and a
    caption's "outputs/log_probability", where it is of floating point.
    """
    outputs, layers = observe(network.outputs, images, **options)
    for path, value in jax.tree_util.tree_flatten_with_path(outputs)[0]:
        if jnp.issubdtype(value.dtype, jnp.floating) and value.ndim:
            name = "/".join(["outputs", jax.tree_util.keystr(path, simple=True, separator="/")])
            layers[name.rstrip("/")] = value[:, None] if value.ndim == 1 else value
    return layers


def inner_layers(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The layers' names without what is predicted, which is only asked about by its name."""
    return [name for name in shapes if not name.startswith("outputs")]


def layer_shapes(network: Network, size: Sequence[int] | None = None) -> dict[str, tuple[int, ...]]:
    """The shape of every layer for one image, worked out without computing anything."""
    shape = (1, *(size or network.image_shape[:2]), network.image_shape[2])
    names: list[str] = []  # JAX would sort the names of a dictionary

    def values(images: Images) -> list[Array]:
        layers = layers_of(network, images)
        names[:] = layers
        return list(layers.values())

    found = jax.eval_shape(values, jax.ShapeDtypeStruct(shape, jnp.float32))
    return {name: value.shape for name, value in zip(names, found, strict=True)}


def score_layer(network: Network, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The layer whose units are the classes, before softmax.

    Raises:
      UserError: where there is none.
    """
    count = len(network.class_names)
    names = [n for n in inner_layers(shapes) if shapes[n][-1] == count and "activation" not in n]
    if not count or not names:
        raise UserError("the network has no layer with a unit for each class: name --layer.")
    return names[-1]


def choose_target(
    network: Network,
    layer: str = "",
    unit: int | None = None,
    class_name: str = "",
    centre: bool = False,
) -> Target:
    """The unit that flags ask for.

    Args:
      layer: empty for the classes' own.
      unit: its channel; None together with no class is all of the layer.
      class_name: or the number of a class; sets layer and unit.

    Raises:
      UserError: a name that is unknown (the nearest is said), a unit out of range.
    """
    shapes = layer_shapes(network)
    if class_name:
        if layer or unit is not None:
            raise UserError(f"--class={class_name}: is instead of --layer and --unit, not beside.")
        return Target(score_layer(network, shapes), class_number(network, class_name), centre)
    layer = layer or score_layer(network, shapes)
    check_layer(layer, shapes)
    size = shapes[layer][-1]
    if unit is not None and not 0 <= unit < size:
        raise UserError(f"--unit={unit}: the layer {layer} has units 0 to {size - 1}.")
    target = Target(layer, unit, centre)
    if layer.startswith("outputs"):
        check_gradient(network, target)
    return target


def check_gradient(network: Network, target: Target) -> None:
    """Raises UserError where no gradient goes back to the image, such as through a loop that ends
    when a caption does.
    """
    image = jax.ShapeDtypeStruct((1, *network.image_shape), jnp.float32)
    try:
        jax.eval_shape(jax.grad(lambda x: target.value(layers_of(network, x)).sum()), image)
    except ValueError as error:
        reason = str(error).partition(".")[0]
        raise UserError(
            f"--layer={target.layer}: has no gradient ({reason}); name a layer before it."
        ) from error


def check_layer(layer: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises UserError, with the nearest name, where there is no such layer."""
    if layer not in shapes:
        hint = nearest(layer, shapes)
        raise UserError(f"--layer={layer}: no such layer.{hint} --method=layers lists them.")


def class_number(network: Network, name: str) -> int:
    """The class of that name; of that number where no class has the name.

    Raises:
      UserError: where there is none, with the nearest name.
    """
    names = network.class_names
    lower = [known.lower() for known in names]
    if name.lower() in lower:
        return lower.index(name.lower())
    if name.isdigit() and int(name) < len(names):
        return int(name)
    hint = nearest(name.lower(), lower)
    raise UserError(f"--class={name}: the network knows no such class of its {len(names)}.{hint}")


def check_rule(network: Network, method: str) -> None:
    """Raises UserError where the rules of relu_rules.py change nothing in a network, and why."""
    found: set[str] = set()

    def note(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        for field in getattr(context.module, "__dataclass_fields__", {}):
            value = getattr(context.module, field, None)
            found.update(name for name, known in ACTIVATIONS.items() if known is value)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        image = jax.ShapeDtypeStruct((1, *network.image_shape), jnp.float32)
        jax.eval_shape(network.outputs, image)
    if not found:
        raise UserError(
            f"--method={method}: the model takes no activation function as an argument, so its "
            "gradient cannot be changed; take saliency or integrated_gradients."
        )
    if not found & {"relu", "relu6"}:
        raise UserError(
            f"--method={method}: is about ReLU, and the model's activation is "
            f"{', '.join(sorted(found))}; take saliency or integrated_gradients."
        )
