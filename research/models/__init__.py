"""Architectures, one family a file, registered by the file's MODELS alone."""

import contextlib
import dataclasses
import functools
import importlib
import math
import pkgutil
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.errors import UserError, choose, nearest
from research.nn.activations import ACTIVATIONS
from research.nn.initialisers import INITIALISERS
from research.training.config import ModelConfig


class Entry(NamedTuple):
    """Facts about a model before it is built.

    Attributes:
      make: takes the module's attributes (num_classes, activation, ...) and returns the module.
      image_size: native side in pixels.
      channels: native image channels; models take any number.
      fixed_size: True where images of another size are brought to the native one, as LeNet's are.
      min_size: the smallest side in pixels for which the last map is not empty.
      task: the experiment that trains it.
      twin: the model with the same parameters, which differs in parts without parameters, such as
        padding; "" for most.
    """

    make: Callable[..., nn.Module]
    image_size: int
    channels: int = 3
    fixed_size: bool = False
    min_size: int = 1
    task: str = "classification"
    twin: str = ""


def available(task: str | None = "classification") -> dict[str, Entry]:
    """Returns the models of a task by name, from all files of this package; None: of every task."""
    models: dict[str, Entry] = {}
    for module in pkgutil.iter_modules(__path__):
        models |= vars(importlib.import_module(f"{__name__}.{module.name}")).get("MODELS", {})
    return {name: entry for name, entry in models.items() if task in (None, entry.task)}


def create(name: str, /, **attributes: object) -> nn.Module:
    """Builds the model called `name`; raises UserError with the nearest name when unknown."""
    return choose(name, available(task=None), "model").make(**attributes)


def attributes(entry: Entry, texts: Sequence[str]) -> dict[str, Any]:
    """Parses a model's attributes from texts: "width=16", "normalise=false", "hidden=64+32".

    Raises:
      UserError: for a text that is no NAME=VALUE, a name that the model does not have (with the
        nearest), and a value of another kind.
    """
    module: Any = entry.make
    while isinstance(module, functools.partial):
        module = module.func
    kinds = {n: k for n, k in typing.get_type_hints(module).items() if n not in _GIVEN_ELSEWHERE}
    readers = {name: reader for name, kind in kinds.items() if (reader := _reader(kind))}
    fields = [f.name for f in dataclasses.fields(module) if f.name in readers]
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in fields:
            raise UserError(
                f"--model_options={text}: NAME=VALUE is needed, of {', '.join(fields)}."
                f"{nearest(name, fields)}"
            )
        try:
            found[name] = readers[name](value)
        except (ValueError, KeyError):
            raise UserError(f"--model_options={text}: {value!r} is no value of {name}.") from None
        if reason := _out_of_range(name, found[name]):
            raise UserError(f"--model_options={text}: {name} {reason}.")
    return found


def configured(entry: Entry, config: ModelConfig, **given: Any) -> nn.Module:
    """Builds a model with the attributes of --model_options, --activation and --initializer.

    Args:
      given: further attributes, such as num_classes.

    Raises:
      UserError: as `attributes` does, and for names that are unknown.
    """
    chosen = attributes(entry, config.model_options) | given
    if config.activation:
        chosen["activation"] = choose(config.activation, ACTIVATIONS, "activation")
    if config.initializer:
        chosen["kernel_init"] = choose(config.initializer, INITIALISERS, "initializer")
    return entry.make(**chosen)


_SHARES = ("dropout", "drop_path")  # of what is dropped


def _out_of_range(name: str, value: Any) -> str:
    """Returns why a value is invalid for every model; "" if it is not."""
    if name in _SHARES and not 0 <= value < 1:
        return "is at least 0 and below 1"
    if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
        return "is finite and not below 0"
    whole = value if isinstance(value, tuple) else (value,)
    if any(isinstance(v, int) and not 0 <= v < 2**31 for v in whole):
        return "is not below 0, nor beyond 32 bits"
    return ""


# Attributes that have flags, or that a person does not choose.
_GIVEN_ELSEWHERE = ("num_classes", "activation", "kernel_init", "axis", "parent", "name")


def _integers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("+"))) if text else ()


def _reader(kind: Any) -> Callable[[str], Any] | None:
    """Returns the function from text to a value of this type; None if there is none."""
    if typing.get_origin(kind) is Literal:
        return {choice: choice for choice in typing.get_args(kind)}.__getitem__
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        each = [reader for one in typing.get_args(kind) if (reader := _reader(one))]
        whole = len(each) == len(typing.get_args(kind))
        return functools.partial(_first, each) if whole else None
    return _READERS.get(kind)


def _first(readers: Sequence[Callable[[str], Any]], text: str) -> Any:
    """Returns the value of the first reader that takes the text; raises ValueError if none does."""
    for reader in readers:
        with contextlib.suppress(ValueError, KeyError):
            return reader(text)
    raise ValueError(text)


_READERS: dict[Any, Callable[[str], Any]] = {
    bool: {"true": True, "false": False}.__getitem__,
    int: int,
    float: float,
    str: str,
    Sequence[int]: _integers,
    tuple[int, ...]: _integers,
}


def count_parameters(entry: Entry) -> int:
    """Counts a model's parameters, with default attributes and images of its own size.

    Only shapes are evaluated; nothing is computed.
    """
    model = entry.make()
    if "kernel_init" in {field.name for field in dataclasses.fields(model)}:
        # To trace how random kernels are drawn takes up to a third of the time.
        model = model.clone(kernel_init=INITIALISERS["zeros"])
    image = jax.ShapeDtypeStruct(
        (1, entry.image_size, entry.image_size, entry.channels), jnp.float32
    )
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
