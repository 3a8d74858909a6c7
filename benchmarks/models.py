"""Images a second of every model, training and inference, beside PyTorch's in one process.

    python benchmarks/models.py
    python benchmarks/models.py --models=resnet18,mobilenet_v2 --image_size=128 --batch_size=16
    python benchmarks/models.py --models=resnet50 --batch_size=256 --precisions=bfloat16  # a GPU

Ours is the program that --mode=train and --mode=predict compile: standardised images, the forward
pass, cross-entropy, gradients, momentum with weight decay, batch statistics, metrics; without
augmentation. PyTorch's does the same, eagerly and through torch.compile; it computes in bfloat16
by autocast, as is usual there. Without torch its columns are missing.

All are timed in turns, so that a machine whose speed drifts slows all alike; a ratio is taken
within each round, and the median of the rounds is shown. On a machine that others keep busy, where
threads wait for each other's turns, one core and its own seconds tell more:

    taskset -c 0 python benchmarks/models.py --clock=cpu

MFU, model FLOPs utilisation, is three
times the forward pass's multiplications and additions (for a training step; once for inference)
over what the device can do: --peak_tflops, or the maker's figure where the device is known.
"""

import argparse
import dataclasses
import gc
import importlib.util
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import classification
from research import models
from research.data.images.preprocessing import Preprocessing
from research.errors import choose
from research.experiment import Experiment
from research.nn.forward import forward
from research.runtime import reuse_memory, use_compilation_cache
from research.training import loop, parallel
from research.training.programs import train_steps

# Dense matrix products in bfloat16, TFLOP/s, by the start of jax's name for the device.
PEAK_TFLOPS = {
    "NVIDIA H200": 989.0,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100": 989.0,
    "NVIDIA A100": 312.0,
    "NVIDIA L40S": 362.0,
    "NVIDIA L4": 121.0,
    "NVIDIA A10G": 70.0,
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5": 459.0,
    "TPU v6 lite": 918.0,
}


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to do one thing: `step` starts it, `wait` returns when it is done."""

    name: str
    step: Callable[[], Any]
    wait: Callable[[Any], Any]

    def rate(self, seconds: float, clock: Callable[[], float]) -> float:
        """Steps a second, over at least one step and about `seconds` of the clock."""
        began = clock()
        self.wait(self.step())
        count = math.ceil(seconds / (clock() - began))
        began = clock()
        for _ in range(count):
            result = self.step()
        self.wait(result)
        return count / (clock() - began)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model at a size, on one random batch."""

    model: str
    entry: models.Entry
    side: int
    batch: int
    precision: str

    @property
    def classes(self) -> int:
        return 1000 if self.entry.image_size >= 128 else 10

    def arrays(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        shape = (self.batch, self.side, self.side, self.entry.channels)
        return {
            "image": rng.integers(0, 256, shape, dtype=np.uint8),
            "label": rng.integers(0, self.classes, self.batch).astype(np.int32),
            "mask": np.ones(self.batch, bool),
            "index": np.arange(self.batch, dtype=np.int32),
            "occurrence": np.zeros(self.batch, np.int32),
        }

    def experiment(self) -> tuple[classification.Config, Experiment]:
        config = classification.Config(
            model=self.model,
            precision=self.precision,
            batch_size=self.batch,
            optimizer="momentum",
            learning_rate=1e-4,
            steps=1000,
            rotation=0.0,
            scale=0.0,
            shift=0.0,
        )
        channels = self.entry.channels
        preprocessing = Preprocessing(
            (self.side, self.side), channels, mean=(0.5,) * channels, std=(0.5,) * channels
        )
        facts = {
            "class_names": [str(i) for i in range(self.classes)],
            "preprocessing": preprocessing.to_json(),
            "train_examples": 1000 * self.batch,
            "monitored": "test",
        }
        return config, classification.build(config, facts)


def ours(case: Case) -> tuple[Contender, Contender]:
    """Training and inference as launch.py runs them."""
    config, experiment = case.experiment()
    where = parallel.create("single", case.batch)
    batch = case.arrays()
    placed = where.put_batch(batch)
    state = loop.new_state(experiment, config, where)
    predict = (
        jax.jit(experiment.evaluation.predict).lower(
            {"params": state.params, **state.model_state}, placed
        )
    ).compile()
    compiled = where.compile(
        train_steps(experiment.training, config, where), state, placed, donate=True
    )

    def train() -> Any:
        nonlocal state
        (state, totals), _ = compiled(state, placed)
        return state, totals

    def infer() -> Any:
        return predict({"params": state.params, **state.model_state}, placed)

    wait = jax.block_until_ready
    return Contender("ours", train, wait), Contender("ours", infer, wait)


def torchs(case: Case, compiled: bool) -> tuple[list[Contender], list[Contender]]:
    """Training and inference by PyTorch, eagerly and, if wished, compiled; as far as there are."""
    if importlib.util.find_spec("torch") is None:
        return [], []
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import torch_models

    model = torch_models.create(case.model)
    if model is None:
        return [], []
    batch = case.arrays()
    steps = torch_models.Steps(model, batch["image"], batch["label"], case.precision)
    kinds = {"eager": False, "compiled": True} if compiled else {"eager": False}
    return (
        [Contender(name, steps.train(kind), steps.wait) for name, kind in kinds.items()],
        [Contender(name, steps.predict(kind), steps.wait) for name, kind in kinds.items()],
    )


def forward_flops(case: Case) -> float:
    """Multiplications and additions of the forward pass for one image, as XLA counts them."""
    image = jax.ShapeDtypeStruct((1, case.side, case.side, case.entry.channels), jnp.float32)
    model = case.entry.make(num_classes=case.classes)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    lowered = jax.jit(lambda v, x: forward(model, v, x)[0]).lower(variables, image)
    cost: Any = lowered.cost_analysis()  # of the program as written: libraries hide theirs
    return float(cost["flops"])


def peak_flops(given: float) -> float | None:
    """FLOP/s of the device; None where it is not known."""
    kind = jax.devices()[0].device_kind
    known = (peak for name, peak in PEAK_TFLOPS.items() if kind.startswith(name))
    tflops = given or next(known, 0.0)
    return tflops * 1e12 if tflops else None


def measure(
    contenders: list[Contender], rounds: int, seconds: float, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Steps a second of each contender in each round, in turns; what fails is left out, aloud."""
    ready = []
    for contender in contenders:  # compiles, and warms up
        try:
            for _ in range(2):
                contender.wait(contender.step())
            ready.append(contender)
        except Exception as error:
            if contender.name == "ours":
                raise
            print(f"  {contender.name}: {str(error).strip().splitlines()[0]}", file=sys.stderr)
    rates: dict[str, list[float]] = {contender.name: [] for contender in ready}
    for turn in range(rounds):
        for contender in ready[:: 1 if turn % 2 == 0 else -1]:
            rates[contender.name].append(contender.rate(seconds, clock))
    return rates


HEADER = (
    f"{'model':20} {'side':>4} {'batch':>5} {'type':8} {'pass':9} {'ours':>8} {'eager':>8} "
    f"{'compiled':>8}  {'/ eager':>7} {'/ compiled':>10} {'MFU':>6}"
)


def row(case: Case, job: str, rates: dict[str, list[float]], utilisation: float | None) -> str:
    """One line of the table; a dash is what was not measured."""

    def images(name: str) -> str:
        values = rates.get(name)
        return f"{statistics.median(values) * case.batch:,.1f}" if values else "-"

    def ratio(name: str) -> str:
        if name not in rates:
            return "-"
        pairs = zip(rates["ours"], rates[name], strict=True)
        return f"{statistics.median(a / b for a, b in pairs):.2f}"

    share = "-" if utilisation is None else f"{utilisation:.1%}"
    return (
        f"{case.model:20} {case.side:4} {case.batch:5} {case.precision:8} {job:9} "
        f"{images('ours'):>8} {images('eager'):>8} {images('compiled'):>8}  "
        f"{ratio('eager'):>7} {ratio('compiled'):>10} {share:>6}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", default="", help="names, with commas between; default: all")
    add("--precisions", default="float32,bfloat16")
    add("--passes", default="train,inference")
    add("--image_size", type=int, default=0, help="side in pixels; 0: each model's own")
    add("--batch_size", type=int, default=0, help="0: 8 from 128 pixels on, 64 below")
    add("--rounds", type=int, default=3, help="times that each is measured")
    add("--seconds", type=float, default=0.5, help="length of one measurement, at least a step")
    add("--clock", choices=CLOCKS, default="wall", help="cpu: seconds that a processor worked")
    add("--compiled", type=int, default=1, help="0: leave torch.compile out, which takes minutes")
    add("--peak_tflops", type=float, default=0.0, help="of the device, for MFU; 0: if known")
    add("--compilation_cache", default="~/.cache/fovea/jax")
    options = parser.parse_args()
    reuse_memory()
    use_compilation_cache(options.compilation_cache)

    known, peak = models.available(), peak_flops(options.peak_tflops)
    pictures = [name for name, entry in known.items() if entry.channels in (1, 3)]
    names = options.models.split(",") if options.models else sorted(pictures)
    device, cores = jax.devices()[0], len(os.sched_getaffinity(0))
    print(f"{device.device_kind}, {cores} cores, jax {jax.__version__}, load {load()}")
    print(f"images a second ({options.clock}), and ours divided by PyTorch's\n{HEADER}", flush=True)
    for name in names:
        entry = choose(name, known, "model")
        fixed = entry.fixed_size or not options.image_size
        side = entry.image_size if fixed else options.image_size
        batch = options.batch_size or (8 if side >= 128 else 64)
        for precision in options.precisions.split(","):
            case = Case(name, entry, side, batch, precision)
            pairs = zip(ours(case), torchs(case, bool(options.compiled)), strict=True)
            for job, (first, others) in zip(("train", "inference"), pairs, strict=True):
                if job not in options.passes.split(","):
                    continue
                rates = measure(
                    [first, *others], options.rounds, options.seconds, CLOCKS[options.clock]
                )
                utilisation = None
                if peak:
                    work = forward_flops(case) * (3 if job == "train" else 1) * batch
                    utilisation = statistics.median(rates["ours"]) * work / peak
                print(row(case, job, rates, utilisation), flush=True)
            gc.collect()
    print(f"load {load()}")


def load() -> str:
    """Processes that want the processor, over the last minute; nothing but ours is 1 to 2."""
    return f"{os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    main()
