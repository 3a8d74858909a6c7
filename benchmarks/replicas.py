"""Several seeds in one program or in several processes: what wins, as ratios inside one run.

    python benchmarks/replicas.py
    python benchmarks/replicas.py --cases=mlp --rounds=3

A replica is a whole training: its own state, data order and random keys. Each way trains the same
replicas for the same steps, of the very step that runs compile:

  one by one    each replica's steps in turn, in one process with all cores; what a study does
  vmap          one program whose weights have a leading dimension
  lax.map       one program that goes through the replicas
  devices       as many devices as cores in one process, a replica on each at a time
  jobs          a process a core, each pinned to it, with its share of the replicas one by one

Processes stay alive and are asked in turn, so that a machine whose speed drifts slows all alike.
Compilation is left out. Ratios are of replica-steps a second to one by one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOUSE))

# {case: (model, its options, image size, batch size, steps of one measurement)}
CASES = {
    "mlp": ("mlp", (), 28, 64, 200),
    "convnet": ("convnet", (), 28, 64, 12),
    "resnet18": ("resnet18_cifar", (), 32, 16, 1),
}
WAYS = {"one": ("one by one", "vmap", "lax.map"), "devices": ("devices",), "jobs": ("jobs",)}


def worker(options: argparse.Namespace) -> None:
    """Compiles the ways of one process; then times the one that a line on stdin names."""
    if options.cores:
        os.sched_setaffinity(0, options.cores)
    import jax

    if options.worker == "devices":
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    from research.runtime import reuse_memory, use_compilation_cache

    reuse_memory()
    use_compilation_cache("~/.cache/fovea/jax")
    ways = compiled(options)
    print("ready", flush=True)
    for line in sys.stdin:
        train = ways[line.strip()]
        began = time.perf_counter()
        train()
        print(json.dumps(time.perf_counter() - began), flush=True)


def compiled(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Returns {way: a function that trains all replicas of this process}, compiled and run once."""
    import jax
    import jax.numpy as jnp

    from experiments import classification
    from research.training import parallel, state
    from research.training.loop import new_state
    from research.training.step import make_train_step

    model, model_options, size, batch_size, steps = CASES[options.worker_case]
    config = classification.Config(
        model=model,
        model_options=model_options,
        image_size=size,
        batch_size=batch_size,
        data_dir=options.data_dir,
        steps=1000,
        parallel="single",
    )
    experiment = classification.build(config)
    where = parallel.create("single", batch_size)
    source = experiment.data().train
    batches = [dict(source.batch(number)) for number in range(options.replicas)]
    states = [
        new_state(experiment, classification.Config(**{**vars(config), "seed": seed}), where)
        for seed in range(options.replicas)
    ]

    def step(one: state.TrainState, batch: Any) -> state.TrainState:
        return make_train_step(experiment.training, None)(one, batch)[0][0]

    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
    rows = jax.tree.map(lambda *x: jnp.stack(x), *batches)

    def one_by_one() -> None:
        single = jax.jit(step, donate_argnums=0)
        for one, batch in zip(states, batches, strict=True):
            now = jax.tree.map(jnp.copy, one)
            placed = jax.device_put(batch)
            for _ in range(steps):
                now = single(now, placed)
            jax.block_until_ready(now)

    def together(program: Callable[..., Any]) -> Callable[[], None]:
        def train() -> None:
            now = jax.tree.map(jnp.copy, stacked)
            for _ in range(steps):
                now = program(now, rows)
            jax.block_until_ready(now)

        return train

    mapped = jax.jit(lambda *x: jax.lax.map(lambda one: step(*one), x), donate_argnums=0)
    ways = {
        "one": {
            "one by one": one_by_one,
            "vmap": together(jax.jit(jax.vmap(step), donate_argnums=0)),
            "lax.map": together(mapped),
        },
        "devices": {"devices": lambda: on_devices(step, states, batches, steps)},
        "jobs": {"jobs": one_by_one},
    }[options.worker]
    for train in ways.values():
        train()
    return ways


def on_devices(step: Any, states: Any, batches: Any, steps: int) -> None:
    """Trains a replica on each device at a time, all by one thread that starts their steps."""
    import jax

    devices = jax.devices()
    single = jax.jit(step)
    for first in range(0, len(states), len(devices)):
        group = range(first, min(first + len(devices), len(states)))
        placed = [
            jax.device_put((states[i], batches[i]), device)
            for i, device in zip(group, devices, strict=False)
        ]
        now = [one for one, _ in placed]
        for _ in range(steps):
            pairs = zip(now, placed, strict=True)
            now = [single(one, batch) for one, (_, batch) in pairs]
        jax.block_until_ready(now)


class Process:
    """A worker that is alive until its standard input is closed."""

    def __init__(self, kind: str, case: str, replicas: int, data_dir: str, *cores: int) -> None:
        flags = [f"--worker={kind}", f"--worker_case={case}", f"--replicas={replicas}"]
        flags += [f"--data_dir={data_dir}", *(["--cores", *map(str, cores)] if cores else [])]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def start(self, way: str) -> None:
        """Starts one measurement."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{way}\n")
        self._process.stdin.flush()

    def seconds(self) -> float:
        """Returns what it took."""
        return float(json.loads(self._answer()))

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise SystemExit("a worker died; see its message above")
        return line


def measured(case: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Returns {way: replica-steps a second, in each round}."""
    cores = sorted(os.sched_getaffinity(0))
    share = options.replicas // len(cores)
    groups = {
        "one": [Process("one", case, options.replicas, options.data_dir)],
        "devices": [Process("devices", case, options.replicas, options.data_dir)],
        "jobs": [Process("jobs", case, share, options.data_dir, core) for core in cores],
    }
    rates: dict[str, list[float]] = {way: [] for ways in WAYS.values() for way in ways}
    for _ in range(options.rounds):
        for kind, way in pairs():
            for process in groups[kind]:
                process.start(way)
            slowest = max([process.seconds() for process in groups[kind]])
            rates[way].append(CASES[case][-1] * options.replicas / slowest)
    for group in groups.values():
        for process in group:
            process.close()
    return rates


def pairs() -> Iterator[tuple[str, str]]:
    """Yields (kind of process, way) of all ways."""
    for kind, ways in WAYS.items():
        for way in ways:
            yield kind, way


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--replicas", type=int, default=8, help="a multiple of the cores")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    parser.add_argument("--worker_case", default="", help=argparse.SUPPRESS)
    parser.add_argument("--cores", type=int, nargs="*", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options)
        return
    for case in options.cases:
        rates = measured(case, options)
        base = rates["one by one"]
        cores = len(os.sched_getaffinity(0))
        print(f"{case}: {CASES[case]}, {options.replicas} replicas, {cores} cores")
        for way, found in rates.items():
            ratios = [rate / one for rate, one in zip(found, base, strict=True)]
            print(
                f"  {way:10}  {statistics.median(found):8.1f} replica-steps/s, ratio "
                f"{statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
