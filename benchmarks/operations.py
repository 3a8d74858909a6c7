"""Operations that XLA is slow at on CPU: its own against those of research/nn, in one process.

    python benchmarks/operations.py

Forward pass and gradient of all arguments together; the minimum of several runs each, in turns.
"""

import argparse
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from research.nn.convolution import convolution
from research.nn.pooling import average_pool, max_pool
from research.nn.transposed_convolution import transposed_convolution

Operation = Callable[..., jax.Array]


def xla_convolution(x: jax.Array, kernel: jax.Array, groups: int) -> jax.Array:
    """What XLA makes of a grouped convolution."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=groups
    )


def xla_max_pool(x: jax.Array, size: int) -> jax.Array:
    """What XLA makes of max pooling."""
    return nn.max_pool(x, (size, size), (2, 2))


CASES: list[tuple[str, tuple[tuple[int, ...], ...], Operation, Operation]] = [
    (
        f"{name} {side}x{side}, [8,28,28,64]",
        ((8, 28, 28, 64), (side, side, 64 // groups, 64)),
        functools.partial(xla_convolution, groups=groups),
        functools.partial(convolution, padding="SAME", groups=groups),
    )
    for name, groups, side in (
        ("convolution in 4 groups", 4, 3),
        ("convolution in 16 groups", 16, 3),
        ("depthwise convolution", 64, 3),
        ("depthwise convolution", 64, 5),
    )
]
CASES.append(
    (
        "convolution 1x1, [16,32,32,64] to 256",
        ((16, 32, 32, 64), (1, 1, 64, 256)),
        functools.partial(xla_convolution, groups=1),
        functools.partial(convolution, padding="SAME"),
    )
)
CASES += [
    (
        f"transposed convolution {side}x{side} stride 2, [8,14,14,64]",
        ((8, 14, 14, 64), (side, side, 64, 32)),
        lambda x, kernel: jax.lax.conv_transpose(
            x, kernel[::-1, ::-1], (2, 2), [(kernel.shape[0] - 1,) * 2] * 2
        ),
        functools.partial(transposed_convolution, stride=2),
    )
    for side in (2, 4)
]
CASES += [
    (
        f"max pooling {size}x{size} stride 2, {str(list(shape)).replace(' ', '')}",
        (shape,),
        functools.partial(xla_max_pool, size=size),
        functools.partial(max_pool, size=size, stride=2),
    )
    for size, shape in ((2, (64, 28, 28, 16)), (3, (8, 112, 112, 64)))
]

CASES.append(
    (
        "average pooling 3x3 stride 1, [4,35,35,192]",
        ((4, 35, 35, 192),),
        lambda x: nn.avg_pool(x, (3, 3), (1, 1), [(1, 1)] * 2),
        functools.partial(average_pool, size=3, stride=1, padding=1),
    )
)


def gradient_step(operation: Operation, arguments: list[jax.Array]) -> Callable[[], None]:
    """One forward and backward pass between other layers, as in a network, compiled."""

    def total(x: jax.Array, *kernels: jax.Array) -> jax.Array:
        return (jax.nn.relu(operation(jnp.tanh(x), *kernels)) ** 2).sum()

    step = jax.jit(jax.value_and_grad(total, argnums=tuple(range(len(arguments)))))
    return lambda: jax.block_until_ready(step(*arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    print(f"forward + backward on {jax.devices()[0].device_kind}, ms, minimum of {runs}")
    print(f"{'operation':60} {'XLA':>8} {'ours':>8} {'ratio':>7}")
    for name, shapes, theirs, ours in CASES:
        keys = jax.random.split(jax.random.key(0), len(shapes))
        arguments = [
            jax.random.normal(key, (jnp.prod(jnp.array(shape)).item(),)).reshape(shape)
            for key, shape in zip(keys, shapes, strict=True)
        ]
        steps = [gradient_step(operation, arguments) for operation in (theirs, ours)]
        best = [float("inf")] * 2
        for _ in range(runs + 1):  # the first compiles, and is never the minimum
            for which, step in enumerate(steps):
                began = time.perf_counter()
                step()
                best[which] = min(best[which], 1e3 * (time.perf_counter() - began))
        print(f"{name:60} {best[0]:8.1f} {best[1]:8.1f} {best[0] / best[1]:7.1f}", flush=True)


if __name__ == "__main__":
    main()
