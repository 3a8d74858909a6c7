"""Architectures, one family a file. A file's MODELS is its list; nothing else registers them."""

import importlib
import pkgutil
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.errors import choose


class Entry(NamedTuple):
    """What is known of a model before it is built.

    Attributes:
      make: takes the module's attributes (num_classes, activation, ...) and returns the module.
      image_size: native side in pixels.
      channels: native image channels; models take any number.
      fixed_size: True where parameters depend on the image size, so only the size of init fits.
      min_size: the smallest side in pixels that leaves a map to pool at the end.
      task: the experiment that trains it.
    """

    make: Callable[..., nn.Module]
    image_size: int
    channels: int = 3
    fixed_size: bool = False
    min_size: int = 1
    task: str = "classification"


def available(task: str | None = "classification") -> dict[str, Entry]:
    """The models of a task by name, from all files of this package; None: of every task."""
    models: dict[str, Entry] = {}
    for module in pkgutil.iter_modules(__path__):
        models |= vars(importlib.import_module(f"{__name__}.{module.name}")).get("MODELS", {})
    return {name: entry for name, entry in models.items() if task in (None, entry.task)}


def create(name: str, **attributes: object) -> nn.Module:
    """Builds the model called `name`; raises UserError with the nearest name when unknown."""
    return choose(name, available(task=None), "model").make(**attributes)


def count_parameters(entry: Entry) -> int:
    """Parameters of a model as it is made without any attributes, for images of its own size.

    Shapes alone are worked out; nothing is computed.
    """
    image = jax.ShapeDtypeStruct(
        (1, entry.image_size, entry.image_size, entry.channels), jnp.float32
    )
    variables = jax.eval_shape(entry.make().init, jax.random.key(0), image)
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
