"""One accelerator, measured in one command: python benchmarks/accelerator.py

    python benchmarks/accelerator.py                    # some 5 minutes on one GPU
    python benchmarks/accelerator.py --tiny --out=DIR   # the same program in small, on a CPU
    python benchmarks/accelerator.py --parts=remat,nms

Each part is a process of its own, so that one that fails or hangs takes no other with it; parts
that do not end within --seconds are left out, and said to be. Written are accelerator.md and
accelerator.json, beside this file or in --out, with the device's name. What needs a package that is
not there (torch, torchvision) says so.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
HOUSE = HERE.parent
sys.path[:0] = [str(HOUSE), str(HERE)]

Rows = list[dict[str, Any]]
EXPERIMENTS = ("classification", "detection", "segmentation", "embedding", "captioning")


class Sizes:
    """What is measured: of an accelerator, or in small."""

    def __init__(self, tiny: bool) -> None:
        self.tiny = tiny
        self.model = "resnet18_cifar" if tiny else "resnet50"
        self.side, self.batch = (16, 4) if tiny else (224, 256)
        self.seconds = 0.01 if tiny else 3.0
        self.steps = 3 if tiny else 100
        self.experiments = ("classification",) if tiny else EXPERIMENTS


def case_of(sizes: Sizes, precision: str = "bfloat16") -> Any:
    """The network that is measured, on one random batch."""
    import models as ours

    from research import models

    entry = models.available("classification")[sizes.model]
    return ours.Case(sizes.model, entry, sizes.side, sizes.batch, precision)


def training(sizes: Sizes) -> Rows:
    """Images a second and the share of the device's peak, beside torch.compile."""
    import jax
    import models as ours

    from research.flops import count_flops

    case, clock = case_of(sizes), time.perf_counter
    _, experiment = case.experiment()
    shapes = jax.eval_shape(experiment.network.init, jax.random.key(0))
    forward = count_flops(experiment.evaluation.predict, shapes, case.arrays()).flops
    kind = jax.devices()[0].device_kind
    peak = next((t for name, t in ours.PEAK_TFLOPS.items() if kind.startswith(name)), None)
    contenders = [ours.ours(case)[0], *ours.torchs(case, compiled=True)[0]]
    rows = []
    for contender in contenders:
        rate = contender.rate(sizes.seconds, clock)
        used = None if peak is None else 3 * forward * rate / (1e12 * peak)
        rows.append({"what": contender.name, "images a second": rate * case.batch, "MFU": used})
    if len(contenders) == 1:
        rows.append({"what": "PyTorch", "images a second": "torch is not installed"})
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
    rows = []
    for name in sizes.experiments:
        with tempfile.TemporaryDirectory() as folder:
            flags = [f"--experiment={name}", f"--steps={sizes.steps}"]
            result = launched([*flags, "--model=linear"] if sizes.tiny else flags, Path(folder))
        rows.append(
            {
                "what": name,
                "examples a second": result["examples_per_second"].get("training"),
                "seconds": result["seconds"],
                "of them compiling": result["compile_seconds"],
                "MiB at most": result["peak_memory"] / 2**20,
            }
        )
    return rows


def replicas(sizes: Sizes) -> Rows:
    """Four seeds in one program beside one by one."""
    import replicas as ways

    options = argparse.Namespace(
        worker="one",
        worker_case="mlp",
        replicas=2 if sizes.tiny else 4,
        data_dir=os.environ["ACCELERATOR_DATA"],
    )
    seconds = {}
    for name, train in ways.compiled(options).items():
        began = time.perf_counter()
        train()
        seconds[name] = time.perf_counter() - began
    first = seconds["one by one"]
    return [{"what": k, "seconds": s, "one by one / it": first / s} for k, s in seconds.items()]


def deterministic(sizes: Sizes) -> Rows:
    """Whether two runs end in the same bits, and what --deterministic costs."""
    rows = []
    asked = os.environ.get("ACCELERATOR_DETERMINISTIC") == "1"
    network = ["--model=mlp"] if sizes.tiny else ["--model=resnet18_cifar", "--image_size=32"]
    flags = ["--experiment=classification", f"--steps={sizes.steps}", *network]
    if asked:
        flags.append("--deterministic")
    found = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            found.append(launched(flags, Path(folder)))
    same = found[0]["fingerprint"] == found[1]["fingerprint"]
    rate = max(result["examples_per_second"]["training"] for result in found)
    name = "--deterministic" if asked else "as it comes"
    rows.append({"what": name, "bits equal twice": same, "examples a second": rate})
    return rows


def remat(sizes: Sizes) -> Rows:
    """Step time and memory of activations that are computed again."""
    import jax

    from experiments import classification
    from research.hardware.memory import memory_of
    from research.training import loop as loop_lib
    from research.training import parallel
    from research.training.programs import train_steps

    rows = []
    for way in ("none", "blocks", "full"):
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
        mib = None if memory is None else memory.peak / 2**20
        rows.append({"what": f"--remat={way}", "ms a step": 1e3 * seconds, "MiB a step": mib})
    return rows


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
    rows: Rows = [{"what": f"nms of {many}, ours", "ms": found}]
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
    "remat": remat,
    "loop": loop,
    "deterministic": deterministic,
    "nms": nms,
    "mining": mining,
    "replicas": replicas,
    "experiments": experiments,
}


def child(part: str, tiny: bool) -> None:
    """Measures one part, and prints its rows as the last line."""
    import jax

    rows = PARTS[part](Sizes(tiny))
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    print(json.dumps({"device": device, "jax": jax.__version__, "rows": rows}), flush=True)


def measured(part: str, tiny: bool, limit: float, **environment: str) -> dict[str, Any]:
    """Runs a part in a process of its own; {"failed": why} where it gives nothing."""
    command = [sys.executable, str(Path(__file__)), f"--child={part}", *["--tiny"] * tiny]
    # PyTorch's parts share the device's memory.
    given = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", **environment}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=max(limit, 1), env=given, cwd=HOUSE
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"was not done within {limit:.0f} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no word"]
        return {"failed": lines[-1][:200]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "–" if value is None else str(value)


def page(result: dict[str, Any]) -> str:
    """Writes the figures as Markdown."""
    lines = ["# One accelerator", "", f"`{result['command']}`, {result['date']}: "]
    lines += [f"{result['device']}, jax {result['jax']}; {result['seconds']:.0f} s in all.", ""]
    for part, found in result["parts"].items():
        lines += [f"## {part}", "", (PARTS[part].__doc__ or "").strip(), ""]
        if "failed" in found:
            lines += [f"Not measured: {found['failed']}.", ""]
            continue
        columns = list(dict.fromkeys(name for row in found["rows"] for name in row))
        lines += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        for row in found["rows"]:
            lines.append(f"| {' | '.join(shown(row.get(name, '')) for name in columns)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a CPU")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--seconds", type=float, default=340.0, help="for all parts together")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["ACCELERATOR_DATA"] = os.environ.get("ACCELERATOR_DATA") or str(
        Path(options.data_dir).absolute()
    )
    if options.child:
        child(options.child, options.tiny)
        return
    began, parts = time.perf_counter(), {}
    known: dict[str, Any] = {"device": "unknown device", "jax": "?"}
    for part in options.parts.split(","):
        ways = ("0", "1") if part == "deterministic" else ("",)
        for way in ways:
            left = options.seconds - (time.perf_counter() - began)
            found = measured(part, options.tiny, left, ACCELERATOR_DETERMINISTIC=way)
            known |= {k: found[k] for k in ("device", "jax") if k in found}
            if "rows" in found and "rows" in parts.get(part, {}):
                found["rows"] = parts[part]["rows"] + found["rows"]
            parts[part] = found
        print(part, found.get("failed") or found["rows"], flush=True)
    result = {
        "command": "python benchmarks/accelerator.py" + (" --tiny" if options.tiny else ""),
        "date": time.strftime("%Y-%m-%d"),
        **known,
        "seconds": time.perf_counter() - began,
        "parts": parts,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "accelerator.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "accelerator.md").write_text(page(result))


if __name__ == "__main__":
    main()
