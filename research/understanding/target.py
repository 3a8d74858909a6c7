"""The unit of a layer that is asked about, by the names that flags give it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.errors import UserError, nearest
from research.nn.activations import ACTIVATIONS
from research.understanding.network import (
    ImageNetwork,
    Scores,
    inner_layers,
    layer_shapes,
    layers_of,
)


class Target(NamedTuple):
    """A unit of a layer that is asked about.

    Attributes:
      layer: its name.
      unit: the channel, which may be traced; None for all of the layer.
      centre: whether a map's central place counts alone, or the mean over all places.
    """

    layer: str
    unit: int | Array | None
    centre: bool = False

    def units(self, layers: Mapping[str, Array]) -> Float[Array, "batch unit"]:
        """Returns the values of all the layer's units for each image."""
        x = layers[self.layer]  # [B, C] or [B, h, w, C]
        if x.ndim == 4:
            x = x[:, x.shape[1] // 2, x.shape[2] // 2] if self.centre else x.mean((1, 2))
        return x.reshape(len(x), -1, x.shape[-1]).mean(1)

    def value(self, layers: Mapping[str, Array]) -> Scores:
        """Returns the unit's value for each image: before softmax where it is a class (a score)."""
        x = self.units(layers)
        return x.mean(-1) if self.unit is None else x[:, self.unit]


def score_layer(network: ImageNetwork, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Finds the layer whose units are the classes, before softmax.

    Raises:
      UserError: if the network has no such layer.
    """
    if network.class_layer:
        return network.class_layer
    count = len(network.class_names)
    names = [n for n in inner_layers(shapes) if shapes[n][-1] == count and "activation" not in n]
    if not count or not names:
        raise UserError("the network has no layer with a unit for each class: name --layer.")
    return names[-1]


def choose_target(
    network: ImageNetwork,
    layer: str = "",
    unit: int | None = None,
    class_name: str = "",
    centre: bool = False,
) -> Target:
    """Chooses the unit that flags ask for.

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
        number = class_number(network, class_name)
        return Target(score_layer(network, shapes), number, centre)
    layer = layer or score_layer(network, shapes)
    check_layer(layer, shapes)
    if unit is not None:
        check_unit(unit, layer, shapes)
    target = Target(layer, unit, centre)
    if layer.startswith("outputs"):
        check_gradient(network, target)
    return target


def check_gradient(network: ImageNetwork, target: Target) -> None:
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
    """Raises UserError, with the nearest name, if the network has no such layer."""
    if layer not in shapes:
        hint = nearest(layer, shapes)
        raise UserError(f"--layer={layer}: no such layer.{hint} --method=layers lists them.")


def check_unit(unit: int, layer: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises UserError where the layer has no such unit; -1 is all of them."""
    size = shapes[layer][-1]
    if not -1 <= unit < size:
        raise UserError(f"--unit={unit}: the layer {layer} has units 0 to {size - 1}.")


def class_number(network: ImageNetwork, name: str) -> int:
    """Finds the class of that name; of that number if no class has the name.

    Raises:
      UserError: with the nearest name, if the network knows no such class.
    """
    names = network.class_names
    lower = [known.lower() for known in names]
    if name.lower() in lower:
        return lower.index(name.lower())
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    hint = nearest(name.lower(), lower)
    raise UserError(f"--class={name}: the network knows no such class of its {len(names)}.{hint}")


def maps_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Returns the inner layers with maps of several places [1, h, w, C]."""
    inner = {name: shapes[name] for name in inner_layers(shapes)}
    return {name: s for name, s in inner.items() if len(s) == 4 and s[1] * s[2] > 1}


def middle_layer(shapes: Mapping[str, tuple[int, ...]], size: tuple[int, int]) -> str:
    """Finds the last layer whose maps are at least a sixteenth of the image's longer side."""
    maps = [n for n, s in maps_of(shapes).items() if max(s[1:3]) >= max(size) // 16]
    if not maps:
        raise UserError("the network has no maps, only vectors: name --layer.")
    return maps[-1]


def last_maps(shapes: Mapping[str, tuple[int, ...]], target: Target) -> str:
    """Finds the coarsest maps before the target, the last of them: Grad-CAM weights these.

    If a prediction is asked about, they lie before the network's last layer. Finer maps that come
    after, as in a U-Net, are nearly the prediction itself.

    Raises:
      UserError: if there are no such maps.
    """
    inner = inner_layers(shapes)
    end = inner.index(target.layer) if target.layer in inner else len(inner) - 1
    maps = {name: s for name, s in maps_of(shapes).items() if inner.index(name) < end}
    if not maps:
        raise UserError(f"--method=grad_cam: there are no maps before {target.layer}.")
    least = min(s[1] * s[2] for s in maps.values())
    return [name for name, s in maps.items() if s[1] * s[2] == least][-1]


def check_rule(network: ImageNetwork, method: str) -> None:
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
