"""Counts a function's floating-point operations in its program, before compilation.

So the count is the same for every kind of device, and needs none. XLA's own figure
(`cost_analysis`) counts the body of a loop once, however often the loop runs.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Jaxpr, jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr

from research.nn.trilinear import FORMULAS

# One operation for each number that comes out.
ELEMENTWISE = {
    "abs", "acos", "acosh", "add", "add_any", "asin", "asinh", "atan", "atan2", "atanh", "cbrt",
    "ceil", "clamp", "cos", "cosh", "digamma", "div", "erf", "erf_inv", "erfc", "exp", "exp2",
    "expm1", "floor", "integer_pow", "lgamma", "log", "log1p", "logistic", "max", "min", "mul",
    "neg", "nextafter", "pow", "rem", "round", "rsqrt", "sign", "sin", "sinh", "sqrt", "square",
    "sub", "tan", "tanh",
}  # fmt: skip
# One for each number that goes in.
REDUCTIONS = {
    "cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "reduce", "reduce_max", "reduce_min",
    "reduce_prod", "reduce_sum",
}  # fmt: skip
# One for each number of the last operand, which is added at its place.
SCATTERS = {"scatter-add", "scatter-mul", "scatter-max", "scatter-min"}


class Cost(NamedTuple):
    """The floating-point operations of a function.

    Attributes:
      flops: additions, multiplications and elementary functions of floating-point numbers, one
        each: a product of matrices [m, k] and [k, n] is 2 m k n. Sorting, decompositions of
        matrices and random bits are not counted.
      open_loops: loops whose number of turns depends on the data, counted as if they ran once.
    """

    flops: float
    open_loops: int

    def times(self, number: int) -> "Cost":
        """Returns the cost of `number` runs; a loop within stays one loop."""
        return Cost(number * self.flops, self.open_loops)


def shown(flops: float) -> str:
    """Writes operations as "18.2 MFLOPs", with one to three digits before the point."""
    units = ("", "k", "M", "G", "T", "P")
    power = min(max(int(math.log10(max(flops, 1.0)) // 3), 0), len(units) - 1)
    return f"{flops / 1000.0**power:,.1f} {units[power]}FLOPs"


def count_flops(function: Callable[..., Any], *arguments: Any) -> Cost:
    """Counts the operations of function(*arguments), except those whose results are not used.

    The body of a loop counts as often as it runs; of several branches the most expensive counts.

    Args:
      arguments: arrays, or trees of them; shapes and types alone matter, so that
        jax.ShapeDtypeStruct will do.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    needed, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _program(needed)


def _program(jaxpr: Jaxpr) -> Cost:
    return _sum([_operation(equation) for equation in jaxpr.eqns])


def _sum(costs: Sequence[Cost]) -> Cost:
    return Cost(sum((c.flops for c in costs), 0.0), sum(c.open_loops for c in costs))


def _operation(equation: Any) -> Cost:
    name, parameters = equation.primitive.name, equation.params
    result = equation.outvars[0].aval if equation.outvars else None
    if equation.primitive in FORMULAS:  # one of our own formulations of a convolution
        formula = FORMULAS[equation.primitive]
        operands = [jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in equation.invars]
        return count_flops(lambda *values: formula(*values, **parameters), *operands)
    if name == "shard_map":  # each device does it with its part
        return _program(parameters["jaxpr"]).times(parameters["mesh"].size)
    if name == "scan":
        return _program(parameters["jaxpr"].jaxpr).times(parameters["length"])
    if name == "while":
        loop = [_program(parameters[key].jaxpr) for key in ("cond_jaxpr", "body_jaxpr")]
        return Cost(_sum(loop).flops, _sum(loop).open_loops + 1)
    if name == "cond":
        return max(_program(branch.jaxpr) for branch in parameters["branches"])
    if result is None or not jax.numpy.issubdtype(result.dtype, np.floating):
        pass  # integers and comparisons
    elif name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return Cost(2.0 * result.size * math.prod(shape[axis] for axis in contracted), 0)
    elif name == "conv_general_dilated":
        return Cost(_convolution(equation), 0)
    elif name in ELEMENTWISE:
        return Cost(float(result.size), 0)
    elif name in REDUCTIONS:
        operands = equation.invars[: len(equation.outvars)]
        return Cost(float(sum(x.aval.size for x in operands)), 0)
    elif name in SCATTERS:
        return Cost(float(equation.invars[-1].aval.size), 0)
    elif name.startswith(("reduce_window", "select_and_")):
        # Of windows, one for each place in each of them; a maximum's gradient looks at them again.
        windows = equation.invars[0].aval.size if name.startswith("select_and_s") else result.size
        return Cost(float(windows * math.prod(parameters["window_dimensions"])), 0)
    return _sum([_program(inner) for inner in jaxprs_in_params(parameters)])


def _convolution(equation: Any) -> float:
    """Counts two for each cell of a filter that meets a value; padding and gaps are no values."""
    (images, kernel), parameters = equation.invars, equation.params
    numbers = parameters["dimension_numbers"]
    places = zip(
        (images.aval.shape[axis] for axis in numbers.lhs_spec[2:]),
        (kernel.aval.shape[axis] for axis in numbers.rhs_spec[2:]),
        (equation.outvars[0].aval.shape[axis] for axis in numbers.out_spec[2:]),
        parameters["window_strides"],
        parameters["padding"],
        parameters["lhs_dilation"],
        parameters["rhs_dilation"],
        strict=True,
    )
    meetings = 1
    for size, side, out, stride, (before, _), gap, dilation in places:
        at = np.arange(out)[:, None] * stride + np.arange(side) * dilation - before
        meetings *= int(((at >= 0) & (at <= (size - 1) * gap) & (at % gap == 0)).sum())
    batch, features = (equation.outvars[0].aval.shape[axis] for axis in numbers.out_spec[:2])
    return 2.0 * meetings * batch * features * kernel.aval.shape[numbers.rhs_spec[1]]
