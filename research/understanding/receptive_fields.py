"""Receptive fields, exactly, for any layer of any network: which pixels a value can depend on.

The network's program is run with other numbers. For every value we keep the lowest and highest row
and column of the image it depends on; where the network adds, multiplies or compares values we take
the extremes of theirs. Strides, padding, dilation, pooling, shortcuts, concatenation and reshapes
then need no formulas of their own, and borders come out right.

Recursion formulas (Araujo et al., "Computing receptive fields of convolutional neural networks",
2019) give the same sizes for chains of convolutions and poolings.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import Int

from research.nn.trilinear import FORMULAS
from research.understanding.network import ImageNetwork, layers_of

# For each value: -lowest row, highest row, -lowest column, highest column; the larger, the wider.
Extent = np.ndarray  # int16 [4, *shape of the value]
NOTHING = np.iinfo(np.int16).min  # depends on no pixel

# Output place i depends on input place i alone.
ELEMENTWISE = {
    "abs", "acos", "add", "add_any", "and", "asin", "atan", "atan2", "cbrt", "ceil", "clamp",
    "convert_element_type", "copy", "cos", "cosh", "div", "eq", "erf", "erf_inv", "erfc", "exp",
    "exp2", "expm1", "floor", "ge", "gt", "imag", "integer_pow", "is_finite", "le", "lgamma",
    "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter", "not", "or",
    "pow", "real", "reduce_precision", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh",
    "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
}  # fmt: skip


def receptive_fields(
    network: ImageNetwork, size: Sequence[int] | None = None
) -> dict[str, Int[np.ndarray, "rows columns 4"]]:
    """Finds the box (top, left, bottom, right) of pixels that each place of each layer depends on.

    Bottom and right are exclusive; boxes end at the image's borders. A dense layer has one place.

    Args:
      size: height and width of the image; the network's own by default.
    """
    height, width = size or network.image_shape[:2]
    image = jax.ShapeDtypeStruct((1, height, width, network.image_shape[2]), jnp.float32)
    names: list[str] = []

    def values(variables: Any, images: Any) -> list[Any]:
        layers = layers_of(network._replace(variables=variables), images)
        names[:] = layers
        return list(layers.values())

    # Weights are arguments: what they are does not matter, even where one is zero.
    program = jax.make_jaxpr(values)(network.variables, image)
    row, column = np.arange(height)[:, None], np.arange(width)[None]
    edges = [np.broadcast_to(x, image.shape[1:3]) for x in (-row, row, -column, column)]
    start = np.broadcast_to(np.stack(edges)[:, None, :, :, None], (4, *image.shape))
    weights = [None] * (len(program.jaxpr.invars) - 1)
    extents = _run(program.jaxpr, program.consts, [*weights, start.astype(np.int16)])
    fields = {}
    for name, extent in zip(names, extents, strict=True):
        if extent is None:
            continue
        places = extent.max((1, -1)) if extent.ndim == 5 else extent.reshape(4, -1).max(-1)
        up, bottom, left, right = places.reshape(4, *(places.shape[1:] or (1, 1))).astype(int)
        fields[name] = np.stack([-up, -left, bottom + 1, right + 1], axis=-1)
    return fields


def sizes(fields: dict[str, Int[np.ndarray, "rows columns 4"]]) -> dict[str, tuple[int, int]]:
    """Returns the rows and columns of the field of each layer's central place."""
    found = {}
    for name, boxes in fields.items():
        top, left, bottom, right = boxes[boxes.shape[0] // 2, boxes.shape[1] // 2]
        found[name] = (int(bottom - top), int(right - left))
    return found


# A value that does not depend on the image is None here, and can be computed when it is asked for.
Value = Extent | None
Known = Callable[[], Any]


def _run(jaxpr: Jaxpr, constants: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
    """Computes the extents of a program's outputs from those of its inputs."""
    extents: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
    known: dict[Any, Known] = {
        variable: (lambda value=value: value)  # type: ignore[misc]
        for variable, value in zip(jaxpr.constvars, constants, strict=True)
    }

    def extent_of(x: Any) -> Value:
        return None if isinstance(x, Literal) else extents.get(x)

    def value_of(x: Any) -> Any:
        """Returns the numbers of what does not depend on the image; None if they are not known."""
        if isinstance(x, Literal):
            return x.val
        return known[x]() if x in known else None

    for equation in jaxpr.eqns:
        arguments = [extent_of(x) for x in equation.invars]
        if all(x is None for x in arguments):
            _remember(equation, value_of, known)
            continue
        outputs = _apply(equation, arguments, value_of)
        extents |= dict(zip(equation.outvars, outputs, strict=True))
    return [extent_of(x) for x in jaxpr.outvars]


def _remember(equation: Any, value_of: Callable[[Any], Any], known: dict[Any, Known]) -> None:
    """Makes the outputs computable, without computing them."""
    if len(equation.outvars) != 1:
        return

    def compute() -> Any:
        values = [value_of(x) for x in equation.invars]
        if any(value is None for value in values):
            return None
        result = equation.primitive.bind(*values, **equation.params)
        return result[0] if equation.primitive.multiple_results else result

    known[equation.outvars[0]] = compute


def _apply(
    equation: Any, arguments: list[Value], value_of: Callable[[Any], Any]
) -> Sequence[Value]:
    """Computes the extents of one operation's outputs."""
    name, parameters = equation.primitive.name, equation.params
    shapes = [out.aval.shape for out in equation.outvars]
    inner = parameters.get("jaxpr", parameters.get("call_jaxpr", parameters.get("fun_jaxpr")))
    if inner is not None and name not in ("scan", "while", "cond"):
        closed = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
        return _run(closed.jaxpr, closed.consts, arguments)
    if equation.primitive in FORMULAS:  # one of our own formulations of a convolution
        plain = functools.partial(FORMULAS[equation.primitive], **parameters)
        closed = jax.make_jaxpr(plain)(*(x.aval for x in equation.invars))
        return _run(closed.jaxpr, closed.consts, arguments)
    if name == "optimization_barrier":
        return arguments
    if name in ELEMENTWISE:
        return [_widest([_spread(x, shapes[0]) for x in arguments if x is not None])]
    if name == "dot_general":
        return [_dot_general(equation, arguments, value_of)]
    if name == "concatenate":
        parts = [_or_nothing(x, v) for x, v in zip(arguments, equation.invars, strict=True)]
        return [np.concatenate(parts, axis=1 + parameters["dimension"])]
    if name == "reduce":  # of several operands at once
        together = _widest([x for x in arguments if x is not None and x.ndim > 1])
        axes = tuple(1 + axis for axis in parameters["dimensions"])
        return [together.max(axes)] * len(shapes)
    x = _or_nothing(arguments[0], equation.invars[0])
    if name == "split":
        ends = np.cumsum(parameters["sizes"])[:-1]
        return np.split(x, ends, axis=1 + parameters["axis"])
    if name == "conv_general_dilated" and arguments[1] is None:
        return [_convolution(x, equation)]
    if name in ONE_ARGUMENT:
        return [ONE_ARGUMENT[name](x, parameters, shapes[0])]
    # Not understood: every output may depend on all that any input depends on.
    widest = _widest([x.reshape(4, -1).max(1) for x in arguments if x is not None])
    return [np.broadcast_to(widest.reshape(4, *[1] * len(s)), (4, *s)) for s in shapes]


def _widest(extents: Sequence[Extent]) -> Extent:
    result = extents[0]
    for extent in extents[1:]:
        result = np.maximum(result, extent)
    return result


def _spread(extent: Extent, shape: Sequence[int]) -> Extent:
    """Spreads a scalar among arrays to every place."""
    if extent.ndim == 1:
        return np.broadcast_to(extent.reshape(4, *[1] * len(shape)), (4, *shape))
    return extent


def _or_nothing(extent: Value, variable: Any) -> Extent:
    if extent is not None:
        return extent
    return np.full((4, *variable.aval.shape), NOTHING, np.int16)


def _window(
    x: Extent,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    base_dilation: Sequence[int],
    window_dilation: Sequence[int],
) -> Extent:
    """Takes the widest of each window over the last axes, placed as in convolution and pooling."""
    free = [(0, 0, 0)] * (x.ndim - len(window))
    sides = [
        (int(low), int(high), int(d) - 1)
        for (low, high), d in zip(padding, base_dilation, strict=True)
    ]
    x = _pad(x, [*free, *sides])
    reach = [
        n - d * (w - 1)
        for n, w, d in zip(x.shape[-len(window) :], window, window_dilation, strict=True)
    ]
    parts = []
    for cell in itertools.product(*map(range, window)):
        first = [c * d for c, d in zip(cell, window_dilation, strict=True)]
        where = tuple(slice(f, f + r, s) for f, r, s in zip(first, reach, strides, strict=True))
        parts.append(x[(slice(None),) * (x.ndim - len(where)) + where])
    return _widest(parts)


def _pad(x: Extent, configuration: Sequence[tuple[Any, Any, Any]]) -> Extent:
    """Pads as lax.pad: cells before, after (negative: cut) and between, which depend on nothing."""
    for axis, (low, high, gap) in enumerate(configuration):
        if (low, high, gap) == (0, 0, 0):
            continue
        n = x.shape[axis]
        shape = list(x.shape)
        shape[axis] = (n - 1) * (gap + 1) + 1 if n else 0
        spaced = np.full(shape, NOTHING, np.int16)
        spaced[(slice(None),) * axis + (slice(None, None, gap + 1),)] = x
        sides = [(0, 0)] * x.ndim
        sides[axis] = (max(low, 0), max(high, 0))
        x = np.pad(spaced, sides, constant_values=NOTHING)
        kept = slice(max(-low, 0), x.shape[axis] - max(-high, 0))
        x = x[(slice(None),) * axis + (kept,)]
    return x


def _convolution(x: Extent, equation: Any) -> Extent:
    parameters, shape = equation.params, equation.outvars[0].aval.shape
    numbers, groups = parameters["dimension_numbers"], parameters["feature_group_count"]
    x = x.transpose(0, *(1 + axis for axis in numbers.lhs_spec))  # [4, B, C, *sides]
    x = x.reshape(4, x.shape[1], groups, -1, *x.shape[3:]).max(3)
    x = _window(
        x,
        [equation.invars[1].aval.shape[axis] for axis in numbers.rhs_spec[2:]],
        parameters["window_strides"],
        parameters["padding"],
        parameters["lhs_dilation"],
        parameters["rhs_dilation"],
    )
    out = [shape[axis] for axis in numbers.out_spec]  # B, C, *sides
    x = np.repeat(x, out[1] // groups, axis=2)
    return x.transpose(0, *(1 + axis for axis in np.argsort(numbers.out_spec)))


def _dot_general(
    equation: Any, arguments: Sequence[Value], value_of: Callable[[Any], Any]
) -> Extent:
    """Multiplies two arrays; a factor that is known to be zero hides what it multiplies."""
    (contracted, batch), shape = (
        equation.params["dimension_numbers"],
        equation.outvars[0].aval.shape,
    )
    parts = []
    for side in (0, 1):
        x, other = arguments[side], equation.invars[1 - side]
        if x is None:
            continue
        free = [
            axis
            for axis in range(x.ndim - 1)
            if axis not in contracted[side] and axis not in batch[side]
        ]
        order = [*batch[side], *free, *contracted[side]]
        x = x.transpose(0, *(1 + axis for axis in order))
        lead = len(batch[side])
        matrix = value_of(other) if _is_small_matrix(other, contracted, lead) else None
        others = [
            n
            for axis, n in enumerate(other.aval.shape)
            if axis not in contracted[1 - side] and axis not in batch[1 - side]
        ]
        if matrix is not None and not (matrix := np.asarray(matrix)).all():
            if contracted[1 - side][0] == 0:
                matrix = matrix.T  # [of the output, contracted]
            columns = [
                np.where(weights != 0, x, NOTHING).max(-1, initial=NOTHING) for weights in matrix
            ]
            x = np.stack(columns, axis=-1)
        else:
            x = x.max(tuple(range(1 + lead + len(free), x.ndim)))
            x = x.reshape(*x.shape, *[1] * len(others))
            x = np.broadcast_to(x, (*x.shape[: x.ndim - len(others)], *others))
        if side == 1:  # the output has the left side's free axes first
            mine = list(range(1 + lead, 1 + lead + len(free)))
            theirs = list(range(1 + lead + len(free), x.ndim))
            x = x.transpose(*range(1 + lead), *theirs, *mine)
        parts.append(x)
    return _widest(parts).reshape(4, *shape)


def _is_small_matrix(variable: Any, contracted: Any, batch_axes: int) -> bool:
    """Returns whether looking for zeros is worth it: resizing is a product with a small matrix."""
    shape = variable.aval.shape
    is_matrix = len(shape) == 2 and batch_axes == 0 and len(contracted[0]) == 1
    return bool(is_matrix and shape[0] * shape[1] <= 2**20)


def _broadcast(x: Extent, parameters: Any, shape: Sequence[int]) -> Extent:
    full = [1] * len(shape)
    for axis, place in enumerate(parameters["broadcast_dimensions"]):
        full[place] = x.shape[1 + axis]
    return np.broadcast_to(x.reshape(4, *full), (4, *shape))


def _slice(x: Extent, parameters: Any, shape: Sequence[int]) -> Extent:
    strides = parameters["strides"] or [1] * (x.ndim - 1)
    bounds = zip(parameters["start_indices"], parameters["limit_indices"], strides, strict=True)
    return x[(slice(None), *(slice(*bound) for bound in bounds))]


def _reduce(x: Extent, parameters: Any, shape: Sequence[int]) -> Extent:
    return x.max(tuple(1 + axis for axis in parameters["axes"])).reshape(4, *shape)


def _reduce_window(x: Extent, parameters: Any, shape: Sequence[int]) -> Extent:
    return _window(
        x,
        parameters["window_dimensions"],
        parameters["window_strides"],
        parameters["padding"],
        parameters["base_dilation"],
        parameters["window_dilation"],
    )


# (extent, the operation's parameters, shape of the output) -> extent
ONE_ARGUMENT: dict[str, Callable[[Extent, Any, Sequence[int]], Extent]] = {
    "broadcast_in_dim": _broadcast,
    "reshape": lambda x, p, shape: x.reshape(4, *shape),
    "squeeze": lambda x, p, shape: x.reshape(4, *shape),
    "expand_dims": lambda x, p, shape: x.reshape(4, *shape),
    "transpose": lambda x, p, shape: x.transpose(0, *(1 + axis for axis in p["permutation"])),
    "rev": lambda x, p, shape: np.flip(x, tuple(1 + axis for axis in p["dimensions"])),
    "slice": _slice,
    "pad": lambda x, p, shape: _pad(x, [(0, 0, 0), *p["padding_config"]]),
    **dict.fromkeys(
        [f"reduce_{kind}" for kind in ("sum", "max", "min", "prod", "and", "or")]
        + ["argmax", "argmin"],
        _reduce,
    ),
    **dict.fromkeys(
        [f"reduce_window_{kind}" for kind in ("sum", "max", "min")] + ["reduce_window"],
        _reduce_window,
    ),
}
