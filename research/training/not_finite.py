"""The first layer whose values are not finite in a step: --debug_nans."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research.errors import NotFiniteError
from research.experiment import Batch, PyTree, Training
from research.random import step_key
from research.training.state import TrainState
from research.training.step import Keys, Totals, parts_of, without_padding


def check_step(
    training: Training,
    accumulate: int,
    before: TrainState,
    rows: Callable[[], Batch],
    totals: Totals,
) -> None:
    """Looks at the loss and the gradient of a step that was taken.

    Args:
      accumulate: parts of the batch.
      before: the state that the step began with.
      rows: returns its batch, on the host; called only where either is not finite.

    Raises:
      NotFiniteError: with the step and the first layer, where either is not finite.
    """
    loss, norm = (float(jax.device_get(totals[name][0])) for name in ("loss", "gradient_norm"))
    if np.isfinite(loss) and np.isfinite(norm):
        return
    step = int(before.step) + 1
    raise NotFiniteError(f"step {step}: {first_layer(training, accumulate, before, rows())}.")


def first_layer(training: Training, accumulate: int, before: TrainState, batch: Batch) -> str:
    """Says which layer gives the first value that is not finite, forward and then backward.

    The step is repeated on one device, with what every layer returns looked at.
    """
    state: TrainState = jax.tree.map(jnp.asarray, jax.device_get(before))
    for name, x in _leaves(state.params):
        if not np.isfinite(x).all():
            return (
                f"parameter {name} is not finite before it; the update of the step before was not"
            )
    names: list[str] = []
    bad: set[int] = set()

    def interceptor(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = call(*args, **kwargs)
        if context.method_name == "__call__":
            number = len(names)  # a layer comes after those inside it
            names.append("/".join(context.module.path) or type(context.module).__name__)
            jax.debug.callback(lambda ok: None if ok else bad.add(number), _finite(out))
        return out

    def loss_of(params: PyTree, part: Batch, keys: Keys) -> jax.Array:
        part = training.augment(keys.augment, part, None)
        with nn.intercept_methods(interceptor):
            values, _, _ = training.loss(
                {"params": params, **state.model_state}, part, keys.loss, None
            )
        return jnp.where(part["mask"], values, 0.0).sum()

    rows = without_padding({name: jnp.asarray(x) for name, x in batch.items()}, None)
    parts = parts_of(rows, step_key(state.seed, state.step), accumulate)
    for number in range(accumulate):
        part, keys = parts if accumulate == 1 else jax.tree.map(lambda x, i=number: x[i], parts)
        names.clear()
        loss, gradient = jax.jit(jax.value_and_grad(loss_of))(state.params, part, keys)
        jax.effects_barrier()
        if bad:
            return f"layer {names[min(bad)]} is the first whose output is not finite"
        if not np.isfinite(loss):
            return "the loss is not finite, though the outputs of all layers are"
        wrong = [name for name, x in _leaves(gradient) if not np.isfinite(x).all()]
        if wrong:
            last = max(wrong, key=lambda name: _place(name, names))
            return f"the gradient of {last} is the first that is not finite, backward"
    return "loss or gradient is not finite, but not where the step is repeated on one device"


def _leaves(tree: PyTree) -> list[tuple[str, np.ndarray]]:
    found = jax.tree_util.tree_flatten_with_path(jax.device_get(tree))[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), x) for path, x in found]


def _place(parameter: str, names: list[str]) -> int:
    """Returns when the layer of a parameter was computed; -1 where no layer was seen."""
    layer = parameter.rpartition("/")[0]
    return max((i for i, name in enumerate(names) if name == layer), default=-1)


def _finite(tree: PyTree) -> jax.Array:
    found = [
        jnp.isfinite(x).all()
        for x in jax.tree.leaves(tree)
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)
    ]
    return jnp.stack(found).all() if found else jnp.array(True)
