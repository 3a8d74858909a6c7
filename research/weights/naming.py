"""Converts foreign tensors to Flax variables by one naming rule.

The Flax path joined by "_" is torch's name with "." written as "_", where `kernel` and `scale` are
torch's `weight`, and batch statistics `mean` and `var` its `running_mean` and `running_var`:

    params/layer1_0/conv1/kernel  <->  layer1.0.conv1.weight

A torch kernel is [out, in, *sides] and a Flax kernel [*sides, in, out]; a dense layer has no sides.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from research.errors import UserError
from research.weights.timm import as_torchvision

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
SHOWN = 5  # names of one kind in an error message

Path = tuple[str, ...]  # of a Flax variable: ("params", "layer1_0", "conv1", "kernel")
Shape = tuple[int, ...]


class Loaded(NamedTuple):
    """Flax variables that were filled with foreign tensors.

    Attributes:
      variables: the given ones with the foreign numbers, in the given dtypes.
      fresh: the layers that keep their initial values, as "fc" or "aux1/fc2"; none unless asked.
      outputs: the number of outputs of those layers in the file; None without such layers.
    """

    variables: dict[str, Any]
    fresh: tuple[str, ...]
    outputs: int | None


def torch_name(path: Path) -> str:
    """Returns the torch name of a Flax variable, but with "_" for every "."."""
    return "_".join((*path[1:-1], LEAVES.get(path[-1], path[-1])))


def torch_shape(shape: Shape, path: Path) -> Shape:
    """Returns the torch shape of a Flax variable."""
    return (shape[-1], shape[-2], *shape[:-2]) if path[-1] == "kernel" else shape


def out_of(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Converts Flax variables to tensors by torch's names and shapes, which `into` reads back."""
    tensors = {}
    for path, value in flatten_dict(dict(variables)).items():
        array = np.asarray(value)
        tensors[torch_name(path)] = (
            np.moveaxis(array, (-1, -2), (0, 1)) if path[-1] == "kernel" else array
        )
    return tensors


def into(
    variables: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    new_head: bool = False,
    unused: str = "",
    source: str = "weights",
) -> Loaded:
    """Fills Flax variables with the tensors of a torch state dict.

    Args:
      variables: {"params": ..., "batch_stats": ...}, as `init` makes them.
      tensors: arrays by torchvision's or timm's names; counters (num_batches_tracked) are ignored.
      new_head: layers that differ in their number of outputs alone, and all in the same way, keep
        the values in `variables`: the classifier of a model for other classes.
      unused: a regular expression; tensors whose name it matches from the start may be unused, as
        "fc" for a backbone without its classifier.
      source: the tensors' name in messages, such as the file's path.

    Raises:
      UserError: variables without a tensor, tensors without a place, wrong shapes; all in one line,
        each with the nearest name.
    """
    targets = {torch_name(path): (path, x) for path, x in flatten_dict(dict(variables)).items()}
    tensors = as_torchvision(tensors, targets)
    names = {k.replace(".", "_"): k for k in tensors if not k.endswith("num_batches_tracked")}
    missing = [key for key in targets if key not in names]
    extra = [
        name
        for key, name in names.items()
        if key not in targets and not (unused and re.match(unused, name))
    ]
    differing: dict[str, tuple[Shape, Shape]] = {}  # found in the file, needed by the model
    for key in targets.keys() & names.keys():
        path, value = targets[key]
        found, needed = tensors[names[key]].shape, torch_shape(value.shape, path)
        if found != needed:
            differing[key] = found, needed
    # Heads differ in their outputs, torch's first axis, and go from one number of classes to one.
    changes = {(found[:1], needed[:1]) for found, needed in differing.values()}
    is_head = len(changes) == 1 and all(
        found[1:] == needed[1:] for found, needed in differing.values()
    )
    fresh = set(differing) if new_head and is_head else set()

    problems = [
        *_listed("no tensor for", missing, lambda key: _nearest(key, tensors)),
        *_listed("no place for", extra, lambda name: _nearest(name, targets)),
        *_listed(
            "wrong shape of",
            [key for key in targets if key in differing and key not in fresh],
            lambda key: "is {}, not {}".format(*differing[key]),
        ),
    ]
    if problems:
        raise UserError(f"{source}: the tensors do not fit the model: {'; '.join(problems)}.")

    filled = {}
    for key, (path, value) in targets.items():
        if key not in fresh:
            tensor = tensors[names[key]]
            if path[-1] == "kernel":
                tensor = np.moveaxis(tensor, (0, 1), (-1, -2))
            # NumPy converts: JAX would compile a conversion for every shape.
            value = jnp.asarray(np.asarray(tensor, value.dtype))
        filled[path] = value
    layers = dict.fromkeys(
        "/".join(path[1:-1]) for key, (path, _) in targets.items() if key in fresh
    )
    outputs = next((differing[key][0][0] for key in fresh), None)
    return Loaded(unflatten_dict(filled), tuple(layers), outputs)


def _listed(what: str, keys: Iterable[str], remark: Callable[[str], str]) -> list[str]:
    """Returns ["what a (remark), b (remark) and 12 more"], or [] if there are no keys."""
    keys = list(keys)
    shown = ", ".join(f"{key} ({remark(key)})" for key in keys[:SHOWN])
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return [f"{what} {shown}{more}"] if keys else []


def _nearest(name: str, names: Iterable[str]) -> str:
    match = difflib.get_close_matches(name, list(names), n=1, cutoff=0.0)
    return f"nearest: {match[0]}" if match else "there are none"
