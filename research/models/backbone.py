"""Backbones: classifiers whose maps another network uses."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from research.errors import UserError, choose
from research.models import Entry, available, create
from research.nn.activations import Activation
from research.nn.initialisers import Initialiser
from research.nn.pooling import max_pool

Maps = Float[Array, "batch height width channel"]


def backbone(
    name: str,
    activation: Activation | None,
    kernel_init: Initialiser,
    axis: str | None,
    **attributes: Any,
) -> nn.Module:
    """Makes the classifier `name` as the submodule "backbone"; call it with features=True.

    Args:
      activation: None keeps the classifier's own.
      axis: the pmap axis that the batch is split over.
      attributes: of the classifier, such as output_stride.

    Raises:
      UserError: for an unknown name, or a classifier that has no such attribute.
    """
    for attribute in attributes:
        if attribute not in _attributes(choose(name, available(), "backbone")):
            others = [n for n, entry in available().items() if attribute in _attributes(entry)]
            raise UserError(
                f"--backbone={name}: has no {attribute}; those that do are {', '.join(others)}."
            )
    if activation is not None:
        attributes["activation"] = activation
    return create(name, kernel_init=kernel_init, axis=axis, name="backbone", **attributes)


def _attributes(entry: Entry) -> set[str]:
    module: Any = entry.make(parent=None)  # None: no submodule of the network that asks
    return {field.name for field in dataclasses.fields(module)}


def by_resolution(maps: Mapping[str, Array]) -> list[Maps]:
    """Returns the last, and so the deepest, map of each size, from fine to coarse.

    Raises:
      UserError: for a network that has no maps, such as a multilayer perceptron.
    """
    last = {value.shape[1:3]: value for value in maps.values()}
    if set(last) <= {(1, 1)}:
        raise UserError("--backbone: has maps of one cell only; choose a convolutional network.")
    return [last[size] for size in sorted(last, reverse=True)]


def pooled(maps: Mapping[str, Array], height: int) -> dict[int, Maps]:
    """Returns {stride: map} at stride 8, 16 and 32 of images of this height.

    VGG's maps are those before each pooling, and end at stride 16: they are pooled here.

    Raises:
      UserError: for a network that does not have the three.
    """
    levels = by_resolution(maps)
    if round(height / levels[-1].shape[1]) == 16:
        levels = [max_pool(level, 2, 2) for level in levels]
    found = {round(height / level.shape[1]): level for level in levels}
    missing = [stride for stride in (8, 16, 32) if stride not in found]
    if missing:
        raise UserError(f"--backbone: has no map at stride {missing[0]}; choose vgg16 or a resnet.")
    return found


def at_strides(maps: Mapping[str, Array], height: int, strides: Sequence[int]) -> list[Maps]:
    """Returns the deepest maps at these strides of images of this height, in the given order.

    Raises:
      UserError: where the network has none, with the strides it has.
    """
    found = {round(height / level.shape[1]): level for level in by_resolution(maps)}
    missing = [stride for stride in strides if stride not in found]
    if missing:
        raise UserError(
            f"--strides={','.join(map(str, strides))}: --backbone has no map at stride "
            f"{missing[0]} of images {height} pixels high; it has {', '.join(map(str, found))}."
        )
    return [found[stride] for stride in strides]
