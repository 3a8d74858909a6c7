"""Images a second of U-Nets by decoder, training and inference, in one process.

    python benchmarks/segmentation.py
    taskset -c 0 python benchmarks/segmentation.py --clock=cpu  # where others keep the machine busy

The decoders are those of `Upsample`: U-Net's 2x2 transposed convolution as it is computed here, as
XLA computes it, and resizing after a 1x1 convolution. Training is a whole step: cross-entropy and
Dice, gradients, AdamW. All are timed in turns; ratios are taken within each round, and medians are
shown.
"""

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import segmentation
from research.data.images.preprocessing import Preprocessing
from research.nn import transposed_convolution
from research.training import loop, parallel
from research.training.programs import train_steps

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
CLASSES = 11
# name -> --model, --model_options, whether XLA's own transposed convolution is used.
CASES: dict[str, tuple[str, tuple[str, ...], bool]] = {
    "U-Net, transposed": ("unet_same", ("width=16",), False),
    "U-Net, transposed, XLA's": ("unet_same", ("width=16",), True),
    "U-Net, nearest": ("unet_same", ("width=16", "upsampling=nearest"), False),
    "U-Net, bilinear": ("unet_same", ("width=16", "upsampling=bilinear"), False),
    "lean U-Net (default)": ("unet_lean", (), False),
}


def xla_transposed(x: jax.Array, kernel: jax.Array, stride: int, padding: int = 0) -> jax.Array:
    """What XLA makes of a transposed convolution."""
    rows, columns = (side - 1 - padding for side in kernel.shape[:2])
    return jax.lax.conv_transpose(
        x, kernel[::-1, ::-1], (stride, stride), [(rows, rows), (columns, columns)]
    )


@contextlib.contextmanager
def xla_s_own(wanted: bool) -> Iterator[None]:
    """Networks that are traced in here use XLA's operator where that is wanted."""
    if not wanted:
        yield
        return
    with mock.patch.object(transposed_convolution, "transposed_convolution", xla_transposed):
        yield


def make(name: str, side: int, batch_size: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """One training step and one prediction, compiled; each waits until it is done."""
    model, options, own = CASES[name]
    config = segmentation.Config(
        model=model, model_options=options, batch_size=batch_size, steps=100, parallel="single"
    )
    preprocessing = Preprocessing((side, side), 3, mean=(120.0,) * 3, std=(60.0,) * 3)
    facts = {
        "class_names": [f"class {k}" for k in range(CLASSES)],
        "preprocessing": preprocessing.to_json(),
        "train_examples": 10_000,
        "monitored": "",
    }
    experiment = segmentation.build(config, facts)
    rng = np.random.default_rng(0)
    shape = (batch_size, side, side)
    batch = {
        "image": rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
        "segmentation": rng.integers(0, CLASSES, shape, dtype=np.uint8),
        "index": np.arange(batch_size, dtype=np.int32),
        "occurrence": np.zeros(batch_size, np.int32),
        "mask": np.ones(batch_size, bool),
    }
    devices = parallel.create("single", batch_size)
    placed = devices.put_batch(batch)
    with xla_s_own(own):
        state = [loop.new_state(experiment, config, devices)]
        variables = jax.tree.map(jnp.copy, state[0].variables)  # training reuses the state's memory
        step = devices.compile(
            train_steps(experiment.training, config, devices), state[0], placed, donate=True
        )
        predict = jax.jit(experiment.evaluation.predict).lower(variables, placed).compile()

    def train() -> None:
        (state[0], _), _ = step(state[0], placed)
        jax.block_until_ready(state[0].params)

    return train, lambda: jax.block_until_ready(predict(variables, placed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    clock = CLOCKS[options.clock]

    def rate(step: Callable[[], Any]) -> float:
        step()
        began, count = clock(), 0
        while clock() - began < options.seconds or not count:
            step()
            count += 1
        return options.batch_size * count / (clock() - began)

    steps = {name: make(name, options.image_size, options.batch_size) for name in CASES}
    rounds = [
        {name: tuple(rate(step) for step in pair) for name, pair in steps.items()}
        for _ in range(options.rounds)
    ]
    reference = next(iter(CASES))
    size = f"{options.image_size}x{options.image_size}, batch {options.batch_size}"
    print(
        f"{jax.devices()[0].device_kind}, {size}, {options.clock} clock: images/s, and their "
        f"ratio to {reference!r}, medians of {options.rounds} rounds"
    )
    print(
        f"{'network and decoder':28} {'training':>10} {'ratio':>7} {'inference':>11} {'ratio':>7}"
    )
    for name in CASES:
        cells = []
        for which in (0, 1):
            rates = [r[name][which] for r in rounds]
            ratios = [r[name][which] / r[reference][which] for r in rounds]
            cells += [statistics.median(rates), statistics.median(ratios)]
        print("{:28} {:10.1f} {:7.2f} {:11.1f} {:7.2f}".format(name, *cells), flush=True)


if __name__ == "__main__":
    main()
