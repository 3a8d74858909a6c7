"""Activations that are computed again in the backward pass, in the place of being kept.

Chen et al., "Training deep nets with sublinear memory cost", 2016. Nothing else changes: the same
numbers, more operations, less memory.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax

from research.nn.trilinear import FORMULAS


class Block(nn.Module):
    """A part of a network that is repeated, such as a residual block: the unit of `recomputing`.

    The first argument of its call is an array; others decide what is computed, and are no arrays.
    """


_EXPENSIVE = {"conv_general_dilated", "dot_general"}


def _products(primitive: Any, *_: Any, **__: Any) -> bool:
    """Returns whether a result is kept within a block: those of convolutions and products."""
    return primitive.name in _EXPENSIVE or primitive in FORMULAS


@contextlib.contextmanager
def recomputing(remat: str) -> Iterator[list[str]]:
    """Makes a forward pass keep less of each `Block` for the backward pass.

    Args:
      remat: "blocks" keeps the results of convolutions and products, and computes what follows them
        (normalisation, activation) again; "full" keeps what enters each block alone; "none" keeps
        all.

    Yields:
      A list that fills with the paths of the blocks.
    """
    met: list[str] = []
    inside: set[Any] = set()

    def interceptor(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        layer = context.module
        block = isinstance(layer, Block) and context.method_name == "__call__"
        if not block or layer.path in inside:
            return call(*args, **kwargs)
        met.append("/".join(layer.path))

        def again(module: nn.Module, x: jax.Array) -> Any:
            inside.add(layer.path)  # the same call, of which this is the inner side
            try:
                return type(layer).__call__(module, x, *args[1:], **kwargs)
            finally:
                inside.discard(layer.path)

        lifted: Callable[..., Any] = nn.remat(
            again, policy=_products if remat == "blocks" else None
        )
        return lifted(layer, args[0])

    with contextlib.nullcontext() if remat == "none" else nn.intercept_methods(interceptor):
        yield met
