"""Transfer learning: trained weights to start from, what stays frozen, and who learns how fast."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from research import weights
from research.errors import UserError
from research.experiment import Variables
from research.progress import console
from research.weights.naming import into


def start_from(
    path_or_name: str, shapes: Variables
) -> tuple[Callable[[Variables], Variables], tuple[str, ...]]:
    """Reads trained weights for a model of these shapes.

    Args:
      path_or_name: what `research.weights.load` takes.
      shapes: the variables as `jax.eval_shape` gives them.

    Returns:
      A function that puts them in the place of fresh variables, and the layers that stay fresh: a
      head for another number of classes, which is said.

    Raises:
      UserError: weights that are unknown, damaged, or of another architecture.
    """
    blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), dict(shapes))
    loaded = into(blank, weights.load(path_or_name), new_head=True, source=path_or_name)
    if loaded.fresh:
        console().print(f"{path_or_name}: {', '.join(loaded.fresh)} start fresh", markup=False)
    trained = flatten_dict(loaded.variables)

    def start(variables: Variables) -> Variables:
        return unflatten_dict(
            {
                path: value if _layer(path[1:]) in loaded.fresh else jnp.asarray(trained[path])
                for path, value in flatten_dict(dict(variables)).items()
            }
        )

    return start, loaded.fresh


def _layer(path: tuple[str, ...]) -> str:
    """The layer a parameter belongs to: ("aux1", "fc2", "kernel") -> "aux1/fc2"."""
    return "/".join(path[:-1])


def matcher(pattern: str) -> Callable[[str], bool] | None:
    """Path -> whether `pattern` is found in it; None where there is no pattern.

    Raises:
      UserError: for what is no regular expression.
    """
    if not pattern:
        return None
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--freeze={pattern}: is no regular expression ({error}).") from None
    return lambda path: expression.search(path) is not None


def rates(fresh: tuple[str, ...] | None, factor: float) -> Callable[[str], float] | None:
    """Path -> factor of its learning rate: `factor` where weights were loaded, 1 where fresh."""
    if fresh is None or factor == 1.0:
        return None
    return lambda path: 1.0 if path.rpartition("/")[0] in fresh else factor
