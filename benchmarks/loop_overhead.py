"""What the training loop costs beside the compiled step, measured in one process.

    python benchmarks/loop_overhead.py
    python benchmarks/loop_overhead.py --model=resnet18_cifar --image_size=32 --batch_size=32 \
        --steps=40

The loop does all that a run does between two evaluations: reading, placing, augmentation, logging,
checkpoints. The bare step is the same compiled program (augmentation is part of it) on one batch
that stays on the device. Both are timed in turns, so a machine whose speed drifts slows both.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import classification
from research.experiment import Experiment
from research.record import RunFolder
from research.runtime import use_compilation_cache
from research.training import loop, parallel


def bare_rate(experiment: Experiment, config: Any) -> float:
    """Steps a second of the compiled step alone."""
    where = parallel.create(config.parallel, config.batch_size)
    batch = experiment.data().train.batch(0)
    state = loop.new_state(experiment, config, batch, where)
    placed = where.put_batch(batch)
    step = loop.compile_train_step(experiment, config, where, state, placed)
    (state, _), _ = step(state, placed)
    jax.block_until_ready(state)
    began = time.perf_counter()
    for _ in range(config.steps):
        (state, _), _ = step(state, placed)
    jax.block_until_ready(state)
    return config.steps / (time.perf_counter() - began)


def loop_rate(experiment: Experiment, config: Any) -> float:
    """Steps a second of the loop, between its first log line and the last before it evaluates."""
    where = parallel.create(config.parallel, config.batch_size)
    with (
        tempfile.TemporaryDirectory() as folder,
        RunFolder(Path(folder), "classification", config) as run,
    ):
        loop.train(experiment, config, where, run)
        rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").open()]
    first, last = rows[0], rows[-2]
    return (last["step"] - first["step"]) / (last["seconds"] - first["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="convnet")
    parser.add_argument("--image_size", type=int, default=0)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--steps", type=int, default=150, help="steps of one measurement")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of measurements")
    options = parser.parse_args()

    log_every = max(options.steps // 10, 1)
    config = classification.Config(
        model=options.model,
        image_size=options.image_size,
        batch_size=options.batch_size,
        data_dir=options.data_dir,
        steps=options.steps,
        log_every=log_every,
        checkpoint_every=options.steps // 3,
        eval_every=options.steps,
    )
    use_compilation_cache(config.compilation_cache)
    experiment = classification.build(config)
    ratios = []
    for _ in range(options.rounds):
        bare, full = bare_rate(experiment, config), loop_rate(experiment, config)
        ratios.append(full / bare)
        print(f"bare {bare:.2f} steps/s, loop {full:.2f} steps/s, ratio {full / bare:.3f}")
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    print(
        f"{options.model}, batch {options.batch_size}, {devices}: loop / bare "
        f"median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}"
    )


if __name__ == "__main__":
    main()
