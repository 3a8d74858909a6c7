"""Transfer learning: trained weights to start from, frozen parameters, learning rates of parts."""

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from research.errors import UserError
from research.experiment import Variables
from research.record.progress import console
from research.weights.naming import into, torch_name
from research.weights.trained import Trained


class InitialWeights(NamedTuple):
    """The start of training from trained weights.

    Attributes:
      fill: puts them in the place of fresh variables.
      is_loaded: path of a parameter, as "backbone/conv1/kernel" -> whether it was filled.
    """

    fill: Callable[[Variables], Variables]
    is_loaded: Callable[[str], bool]


def start_from(trained: Trained, shapes: Variables, below: str = "") -> InitialWeights:
    """Puts trained weights into a model of these shapes.

    Args:
      shapes: the variables as `jax.eval_shape` gives them.
      below: the submodule that the weights are of, as "backbone": all else starts fresh, and
        tensors that it has no place for (a classifier) are left out. "" for the whole model, where
        a head for another number of classes starts fresh, which is said. Weights of a model that
        has that submodule too fill the whole model where they have all its names, and else that.

    Raises:
      UserError: weights of another architecture.
    """
    tensors = trained.tensors
    own = {name: tensors[name] for name in tensors if below and name.startswith(f"{below}_")}
    if own and {torch_name(path) for path in flatten_dict(dict(shapes))} == tensors.keys():
        below = ""
    elif own:
        tensors = {name.removeprefix(f"{below}_"): tensor for name, tensor in own.items()}
    part = shapes if not below else {k: v[below] for k, v in shapes.items() if below in v}
    blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), dict(part))
    loaded = into(
        blank,
        tensors,
        new_head=not below,
        unused=".*" if below else "",
        source=trained.source,
    )
    if loaded.fresh:
        fresh = ", ".join(loaded.fresh)
        console().print(f"{trained.source}: {fresh} start fresh", markup=False)
    inside = (below,) if below else ()
    filled = {
        (path[0], *inside, *path[1:]): value
        for path, value in flatten_dict(loaded.variables).items()
        if "/".join(path[1:-1]) not in loaded.fresh
    }
    names = {"/".join(path[1:]) for path in filled}

    def fill(variables: Variables) -> Variables:
        flat = flatten_dict(dict(variables))
        return unflatten_dict(
            {path: jnp.asarray(filled.get(path, value)) for path, value in flat.items()}
        )

    return InitialWeights(fill, names.__contains__)


def matcher(pattern: str) -> Callable[[str], bool] | None:
    """Returns path -> whether `pattern` is found in it; None without a pattern.

    Raises:
      UserError: where the pattern is no regular expression.
    """
    if not pattern:
        return None
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--freeze={pattern}: is no regular expression ({error}).") from None
    return lambda path: expression.search(path) is not None


def rates(start: InitialWeights | None, factor: float) -> Callable[[str], float] | None:
    """Returns path -> factor of its learning rate: `factor` for loaded weights, else 1."""
    if start is None or factor == 1.0:
        return None
    return lambda path: factor if start.is_loaded(path) else 1.0
