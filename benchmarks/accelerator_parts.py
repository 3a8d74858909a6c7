"""What benchmarks/accelerator.py measures, each part in a process of its own.

    python benchmarks/accelerator_parts.py nms

prints a row for each figure, as JSON, behind "measured: ".
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

MARK = "measured: "  # what is on these lines is a row; the launcher writes others
Rows = Iterable[dict[str, Any]]  # given one by one: what is there when the time is over counts
EXPERIMENTS = (
    "classification",
    "detection",
    "segmentation",
    "embedding",
    "captioning",
    "denoising",
    "language",
)


class Sizes:
    """What is measured: of an accelerator, or in small."""

    def __init__(self, tiny: bool) -> None:
        self.tiny = tiny
        self.model = "resnet18_cifar" if tiny else "resnet50"
        self.side, self.batch = (16, 4) if tiny else (224, 256)
        self.seconds, self.rounds = (0.01, 1) if tiny else (2.0, 3)
        self.steps = 3 if tiny else 100
        self.experiments = ("classification",) if tiny else EXPERIMENTS


def case_of(sizes: Sizes, precision: str = "bfloat16") -> Any:
    """The network that is measured, on one random batch."""
    import models as ours

    from research import models

    entry = models.available("classification")[sizes.model]
    return ours.Case(sizes.model, entry, sizes.side, sizes.batch, precision)


def training(sizes: Sizes) -> Rows:
    """Images a second and the share of the device's peak, beside PyTorch eager and compiled."""
    import jax
    import models as ours

    from research.flops import count_flops

    case = case_of(sizes)
    _, experiment = case.experiment()
    shapes = jax.eval_shape(experiment.network.init, jax.random.key(0))
    forward = count_flops(experiment.evaluation.predict, shapes, case.arrays()).flops
    peak = ours.peak_flops(0.0)
    contenders = [ours.ours(case)[0], *ours.torchs(case, compiled=True)[0]]
    rates = ours.measure(contenders, sizes.rounds, sizes.seconds, time.perf_counter)
    rows: list[dict[str, Any]] = []
    for name, found in rates.items():
        rate = statistics.median(found)
        used = None if peak is None else 3 * forward * rate / peak
        ratios = [mine / other for mine, other in zip(rates["ours"], found, strict=True)]
        row = {"what": name, "images a second": rate * case.batch, "MFU": used}
        rows.append({**row, "ours / it": statistics.median(ratios)})
    if len(contenders) == 1:
        rows.append({"what": "PyTorch", "images a second": "torch is not installed"})
    return rows


def precision(sizes: Sizes) -> Rows:
    """How far logits are from those of float32 with all its digits, which GPUs round to TF32."""
    import jax
    import numpy as np

    def logits(name: str, digits: str | None = None) -> tuple[Any, float]:
        case = case_of(sizes, name)
        _, experiment = case.experiment()
        variables = experiment.network.init(jax.random.key(0))
        images = jax.device_put(experiment.network.see(case.arrays()))
        with jax.default_matmul_precision(digits):
            forward = jax.jit(experiment.network.evaluate).lower(variables, images).compile()
        ms = timed(lambda: forward(variables, images), jax.block_until_ready, sizes.seconds)
        return np.asarray(forward(variables, images), np.float64), ms

    found = {
        "float32, all digits": logits("float32", "highest"),
        "--precision=float32": logits("float32"),
        "--precision=bfloat16": logits("bfloat16"),
    }
    truth = found["float32, all digits"][0]
    rows: list[dict[str, Any]] = []
    for name, (values, ms) in found.items():
        away = float(np.sqrt(np.mean((values - truth) ** 2)) / truth.std())
        rate = 1e3 * sizes.batch / ms
        rows.append({"what": name, "images a second": rate, "RMS away / deviation": away})
    return rows


def loop(sizes: Sizes) -> Rows:
    """The loop's steps a second beside the bare step's, and how fast batches are read alone."""
    import loop_overhead

    from experiments import classification

    config = classification.Config(
        model="mlp" if sizes.tiny else "resnet18_cifar",
        image_size=0 if sizes.tiny else 32,
        batch_size=16 if sizes.tiny else 256,
        data_dir=os.environ["ACCELERATOR_DATA"],
        steps=4 * sizes.steps,
        log_every=max(sizes.steps // 4, 1),
        eval_every=4 * sizes.steps,
    )
    experiment = classification.build(config)
    bare = loop_overhead.bare_rate(experiment, config).wall
    full = loop_overhead.loop_rate(experiment, config).wall
    source = experiment.data().train
    began = time.perf_counter()
    count = sum(1 for _ in source.iterate(0, sizes.steps))
    read = count / (time.perf_counter() - began)
    return [
        {"what": "bare step", "steps a second": bare},
        {"what": "loop", "steps a second": full, "of the bare step": full / bare},
        {"what": "reading alone", "steps a second": read, "of the bare step": read / bare},
    ]


def launched(flags: list[str], folder: Path) -> dict[str, Any]:
    """The result of a run by the launcher, in this process."""
    import launch

    data = os.environ["ACCELERATOR_DATA"]
    given = [*flags, f"--workdir={folder}", f"--data_dir={data}"]
    code = launch.main(["launch.py", *given])
    if code:
        raise RuntimeError(f"{' '.join(given)}: exit code {code}")
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def experiments(sizes: Sizes) -> Rows:
    """Default runs, so many steps of each."""
    for name in sizes.experiments:
        with tempfile.TemporaryDirectory() as folder:
            flags = [f"--experiment={name}", f"--steps={sizes.steps}"]
            result = launched([*flags, "--model=linear"] if sizes.tiny else flags, Path(folder))
        yield {
            "what": name,
            "examples a second": result["examples_per_second"].get("training"),
            "seconds": result["seconds"],
            "of them compiling": result["compile_seconds"],
            "MiB at most": result["peak_memory"] / 2**20,
        }


def replicas(sizes: Sizes) -> Rows:
    """Eight seeds in one program beside one by one."""
    import replicas as ways

    for case in ("mlp",) if sizes.tiny else ("mlp", "convnet", "resnet18"):
        options = argparse.Namespace(
            worker="one",
            worker_case=case,
            replicas=2 if sizes.tiny else 8,
            data_dir=os.environ["ACCELERATOR_DATA"],
        )
        seconds: dict[str, list[float]] = {}
        trained = ways.compiled(options)
        for _ in range(sizes.rounds):
            for name, train in trained.items():
                began = time.perf_counter()
                train()
                seconds.setdefault(name, []).append(time.perf_counter() - began)
        first = seconds["one by one"]
        for name, found in seconds.items():
            ratios = [one / it for one, it in zip(first, found, strict=True)]
            row = {"what": f"{case}, {name}", "seconds": statistics.median(found)}
            yield {**row, "one by one / it": statistics.median(ratios)}


def deterministic(sizes: Sizes) -> Rows:
    """Whether two runs of the default end in the same bits, and what --deterministic costs."""
    asked = os.environ.get("ACCELERATOR_DETERMINISTIC") == "1"
    flags = ["--experiment=classification", f"--steps={sizes.steps}"]
    flags += ["--model=mlp"] * sizes.tiny + ["--deterministic"] * asked
    found = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            found.append(launched(flags, Path(folder)))
    yield {
        "what": "--deterministic" if asked else "as it comes",
        "bits equal twice": found[0]["fingerprint"] == found[1]["fingerprint"],
        "examples a second": max(one["examples_per_second"]["training"] for one in found),
    }


def remat(sizes: Sizes) -> Rows:
    """Step time and memory of activations that are computed again."""
    import jax

    from experiments import classification
    from research.hardware.memory import memory_of
    from research.training import loop as loop_lib
    from research.training import parallel
    from research.training.programs import train_steps

    for way in ("full", "blocks", "none"):  # a device tells its highest use so far
        config, experiment = case_of(sizes).experiment()
        config = classification.Config(**{**vars(config), "remat": way})
        experiment = classification.build(config, experiment.facts)
        where = parallel.create("single", sizes.batch)
        placed = where.put_batch(case_of(sizes).arrays())
        state = loop_lib.new_state(experiment, config, where)
        steps = train_steps(experiment.training, config, where)
        step = where.compile(steps, state, placed, donate=True)
        (state, _), _ = step(state, placed)
        jax.block_until_ready(state)
        began = time.perf_counter()
        for _ in range(sizes.steps):
            (state, _), _ = step(state, placed)
        jax.block_until_ready(state)
        seconds = (time.perf_counter() - began) / sizes.steps
        memory = memory_of(step)
        used = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
        row = {"what": f"--remat={way}", "ms a step": 1e3 * seconds}
        row["MiB, as --mode=check says"] = None if memory is None else memory.peak / 2**20
        yield {**row, "MiB in use at most": used and used / 2**20}
        del state, placed, step, steps


def timed(call: Callable[[], Any], wait: Callable[[Any], Any], seconds: float) -> float:
    """Milliseconds of one call, over several; a first one compiles."""
    wait(call())
    count, began = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - began < seconds:
        result = call()
        count += 1
        wait(result)
    return 1e3 * (time.perf_counter() - began) / count


def nms(sizes: Sizes) -> Rows:
    """Suppression of 4,000 boxes to 100, beside torchvision's."""
    import jax
    import numpy as np

    from research.geometry.nms import nms as ours

    rng, many = np.random.default_rng(0), 50 if sizes.tiny else 4000
    corner = rng.uniform(0, 400, (many, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 80, (many, 2))], 1).astype("f")
    scores = rng.uniform(size=many).astype("f")
    keep = jax.jit(lambda b, s: ours(b, s, 100 if many > 100 else many))
    placed = jax.device_put((boxes, scores))
    found = timed(lambda: keep(*placed), jax.block_until_ready, sizes.seconds)
    rows = [{"what": f"nms of {many}, ours", "ms": found}]
    try:
        import torch
        from torchvision.ops import nms as theirs
    except ImportError:
        return [*rows, {"what": "torchvision", "ms": "torchvision is not installed"}]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    given = torch.tensor(boxes, device=device), torch.tensor(scores, device=device)
    other = timed(lambda: theirs(*given, 0.5)[:100].cpu(), lambda x: x, sizes.seconds)
    return [*rows, {"what": "torchvision", "ms": other}]


def mining(sizes: Sizes) -> Rows:
    """Triplet loss with its gradient, by each way of mining."""
    import jax
    import jax.numpy as jnp

    from research.losses.triplet import MINING, triplet_loss

    batch = 16 if sizes.tiny else 1024
    x = jax.random.normal(jax.random.key(0), (batch, 64))
    x /= jnp.linalg.norm(x, axis=1, keepdims=True)
    labels, mask, rows = jnp.arange(batch) % (batch // 4), jnp.ones(batch, bool), []
    for name in MINING:

        def loss(x: jax.Array, name: str = name) -> jax.Array:
            return triplet_loss(x, labels, mask, jax.random.key(1), mining=name)[0].mean()

        step = jax.jit(jax.value_and_grad(loss))
        ms = timed(lambda s=step: s(x), jax.block_until_ready, sizes.seconds)
        rows.append({"what": f"{name}, batch {batch}", "ms": ms})
    return rows


PARTS: dict[str, Callable[[Sizes], Rows]] = {
    "training": training,
    "loop": loop,
    "precision": precision,
    "deterministic": deterministic,
    "nms": nms,
    "mining": mining,
    "experiments": experiments,
    "remat": remat,
    "replicas": replicas,
}


def child(part: str, tiny: bool) -> None:
    """Measures one part, and prints each of its rows as a line of JSON, the device's first."""
    import jax

    from research.runtime import use_compilation_cache

    use_compilation_cache("~/.cache/fovea/jax")
    for row in PARTS[part](Sizes(tiny)):
        device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
        print(MARK + json.dumps({"device": device, "jax": jax.__version__, "row": row}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a CPU")
    options = parser.parse_args()
    os.environ.setdefault("ACCELERATOR_DATA", str(Path("data").absolute()))
    child(options.part, options.tiny)
