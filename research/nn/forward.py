"""The one forward pass of training and evaluation: precision, dropout key, batch statistics."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from research.experiment import PyTree, Variables
from research.nn.normalisation import BatchNorm
from research.nn.regularisation import Dropout
from research.nn.rematerialisation import recomputing

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def cast(tree: PyTree, dtype: Any) -> PyTree:
    """Casts the floating-point leaves of a tree; others stay as they are."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def forward(
    model: nn.Module,
    variables: Variables,
    *inputs: PyTree,
    precision: str = "float32",
    train: bool = False,
    key: jax.Array | None = None,
    axis: str | None = None,
    frozen: Callable[[str], bool] | None = None,
    remat: str = "none",
    **options: Any,
) -> tuple[PyTree, PyTree]:
    """Applies a model to its inputs.

    Mixed precision as in Micikevicius et al., "Mixed precision training", 2018: parameters are
    float32 and are cast for the layers; batch statistics and everything returned are float32.

    Args:
      model: its attribute `axis`, where it has one, is set here, in training alone.
      variables: {"params": ..., other collections}.
      inputs: arrays or trees of them, cast too where they are floating-point.
      precision: a key of PRECISIONS.
      train: layers behave as in training; needs `key` where the model has dropout.
      axis: the pmap axis that batch statistics are computed over.
      frozen: path of a parameter -> whether it is frozen: it gets no gradient, and none is worked
        out below the first parameter that learns. Batch normalisation whose scale is frozen uses
        its running statistics in training too, and leaves them as they are; dropout and stochastic
        depth are off inside a module of which every parameter is frozen.
      remat: what is computed again in the backward pass: see `recomputing`.
      options: further arguments of the model, such as features=True, or method="begin".

    Returns:
      The outputs, and all collections but "params" after the pass (unchanged in evaluation).
    """
    dtype = PRECISIONS[precision]
    state = {name: value for name, value in variables.items() if name != "params"}
    arguments = cast(inputs, dtype)
    params = cast(variables["params"], dtype)
    if frozen:
        params = jax.tree.map_with_path(
            lambda path, x: jax.lax.stop_gradient(x) if frozen(_name(path)) else x, params
        )
    casted = {"params": params, **state}
    if not train:
        outputs = model.apply(casted, *arguments, train=False, **options)
        return cast(outputs, jnp.float32), state
    rngs = None if key is None else {"dropout": key}
    held = nn.intercept_methods(_freeze(frozen, params)) if frozen else contextlib.nullcontext()
    named: dict[str, Any] = (
        {"axis": axis} if "axis" in {field.name for field in dataclasses.fields(model)} else {}
    )
    with held, recomputing(remat):
        outputs, new_state = model.clone(**named).apply(
            casted, *arguments, train=True, rngs=rngs, mutable=[*state, "auxiliary"], **options
        )
    return cast(outputs, jnp.float32), cast(new_state, jnp.float32)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _freeze(frozen: Callable[[str], bool], params: PyTree) -> Callable[..., Any]:
    """Returns an interceptor that makes frozen layers behave as in evaluation: see `forward`."""
    holds, learns = set(), set()  # modules that hold parameters, and those with trained ones
    for path in flatten_dict(dict(params)):
        above = {path[:end] for end in range(len(path))}
        holds |= above
        learns |= set() if frozen("/".join(path)) else above

    def interceptor(
        call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        layer = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(layer, BatchNorm) and frozen("/".join((*layer.path, "scale"))):
            kwargs = {**kwargs, "train": False}
        if isinstance(layer, Dropout):
            inside = layer.path
            while inside not in holds:  # the dropout itself, and modules without parameters
                inside = inside[:-1]
            if inside not in learns:
                return call(*args[:1], **{**kwargs, "train": False})
        return call(*args, **kwargs)

    return interceptor
