"""What the training loop costs beside the compiled step, measured in one process.

    python benchmarks/loop_overhead.py
    python benchmarks/loop_overhead.py --model=resnet18_cifar --image_size=32 --batch_size=32 \
        --steps=36 --checkpoint_every=15 --log_every=4

The loop does all that a run does between two evaluations: reading, placing, augmentation, logging,
checkpoints as often as the default run makes them. The bare step is the same compiled program
(augmentation is part of it) on one batch that stays on the device. Both are timed in turns, so a
machine whose speed drifts slows both. On a CPU both rates are also given for a second of processor
time, which other work on the machine does not take away.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import classification
from research.experiment import Experiment
from research.record.run_folder import RunFolder
from research.runtime import reuse_memory, use_compilation_cache
from research.training import loop, parallel
from research.training.programs import train_steps


class Rate(NamedTuple):
    """Steps for each second of a clock."""

    wall: float
    processor: float  # of all threads of this process


def bare_rate(experiment: Experiment, config: Any) -> Rate:
    """Of the compiled step alone."""
    where = parallel.create(config.parallel, config.batch_size)
    batch = experiment.data().train.batch(0)
    state = loop.new_state(experiment, config, where)
    placed = where.put_batch(batch)
    step = where.compile(
        train_steps(experiment.training, config, where), state, placed, donate=True
    )
    (state, _), _ = step(state, placed)
    jax.block_until_ready(state)
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(config.steps):
        (state, _), _ = step(state, placed)
    jax.block_until_ready(state)
    return Rate(
        config.steps / (time.perf_counter() - wall),
        config.steps / (time.process_time() - processor),
    )


class TimedFolder(RunFolder):
    """A run's folder that notes both clocks at each logged step."""

    def log(self, step: int, metrics: Mapping[str, float], warning: str | None = None) -> None:
        super().log(step, metrics, warning)
        self.times = [
            *getattr(self, "times", []),
            (step, time.perf_counter(), time.process_time()),
        ]


def loop_rate(experiment: Experiment, config: Any) -> Rate:
    """Of the loop, between its first log line and the last before it evaluates."""
    where = parallel.create(config.parallel, config.batch_size)
    with (
        tempfile.TemporaryDirectory() as folder,
        TimedFolder(Path(folder), "classification", config) as run,
    ):
        loop.train(experiment, config, where, run)
        first, last = run.times[0], run.times[-2]
    steps = last[0] - first[0]
    return Rate(steps / (last[1] - first[1]), steps / (last[2] - first[2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="convnet")
    parser.add_argument("--image_size", type=int, default=0)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--steps", type=int, default=430, help="steps of one measurement")
    parser.add_argument("--checkpoint_every", type=int, default=190, help="as the default run does")
    parser.add_argument("--log_every", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5, help="pairs of measurements")
    options = parser.parse_args()

    config = classification.Config(
        model=options.model,
        image_size=options.image_size,
        batch_size=options.batch_size,
        data_dir=options.data_dir,
        steps=options.steps,
        log_every=options.log_every,
        checkpoint_every=options.checkpoint_every,
        eval_every=options.steps,
    )
    reuse_memory()
    use_compilation_cache(config.compilation_cache)
    experiment = classification.build(config)
    rounds = []
    for _ in range(options.rounds):
        bare, full = bare_rate(experiment, config), loop_rate(experiment, config)
        rounds.append(Rate(full.wall / bare.wall, full.processor / bare.processor))
        print(
            f"bare {bare.wall:.2f} steps/s, loop {full.wall:.2f} steps/s, ratio "
            f"{rounds[-1].wall:.3f}, of processor time {rounds[-1].processor:.3f}"
        )
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    print(f"{options.model}, batch {options.batch_size}, {devices}: loop / bare")
    for name, ratios in zip(Rate._fields, zip(*rounds, strict=True), strict=True):
        print(
            f"  of {name} time: median {statistics.median(ratios):.3f}, "
            f"{min(ratios):.3f} to {max(ratios):.3f}"
        )


if __name__ == "__main__":
    main()
