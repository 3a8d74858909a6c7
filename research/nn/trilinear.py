"""Bilinear operations whose derivatives are our own too: of any order, forward and reverse.

A convolution or a matrix product f(a, b), weighed by a c of its output's shape, is a number
<c, f(a, b)> that is linear in a, in b and in c: a trilinear form. Its three gradients are f itself
and the derivatives that training needs, and they are bilinear again, with each other as their
derivatives. So three formulations, each as fast as it can be made, close under differentiation.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Bilinear = Callable[..., jax.Array]

# The value of each operation in JAX's own operations, for functions that analyse programs.
FORMULAS: dict[Primitive, Bilinear] = {}


def trilinear(
    name: str, value: Bilinear, by_first: Bilinear, by_second: Bilinear, static: tuple[str, ...]
) -> Bilinear:
    """Returns f(a, b, **static), which is `value` with these derivatives.

    Args:
      name: of the operation in printed programs.
      value: (a, b, **static) -> c.
      by_first: (b, c, **static) -> a, the gradient of <c, value(a, b)> by a.
      by_second: (a, c, **static) -> b, the gradient by b.
      static: names of the keyword arguments, which are hashable and the same for all three.
    """
    f, by_a, by_b = (
        _primitive(f"{name}{suffix}", function, static)
        for suffix, function in (("", value), ("_by_first", by_first), ("_by_second", by_second))
    )
    # (cotangent, the two arguments, of which one is unknown) -> the cotangent of that one.
    ad.defbilinear(
        f, lambda c, _, b, **k: by_a.bind(b, c, **k), lambda c, a, _, **k: by_b.bind(a, c, **k)
    )
    ad.defbilinear(
        by_a, lambda a, _, c, **k: by_b.bind(a, c, **k), lambda a, b, _, **k: f.bind(a, b, **k)
    )
    ad.defbilinear(
        by_b, lambda b, _, c, **k: by_a.bind(b, c, **k), lambda b, a, _, **k: f.bind(a, b, **k)
    )
    return f.bind


def _primitive(name: str, function: Bilinear, static: tuple[str, ...]) -> Primitive:
    """Makes an operation that JAX keeps as one until it is compiled."""
    primitive = Primitive(name)
    jitted = jax.jit(function, static_argnames=static)
    primitive.def_impl(jitted)
    FORMULAS[primitive] = function

    def shape(*arguments: Any, **options: Any) -> jax.core.ShapedArray:
        plain = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arguments]
        out = jitted.eval_shape(*plain, **options)  # traced once for the same shapes
        return jax.core.ShapedArray(out.shape, out.dtype)

    def batch(arguments: Any, axes: Any, **options: Any) -> tuple[jax.Array, int]:
        return jax.vmap(partial(function, **options), in_axes=tuple(axes))(*arguments), 0

    primitive.def_abstract_eval(shape)
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
    batching.primitive_batchers[primitive] = batch
    return primitive
