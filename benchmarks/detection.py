"""Images a second of the compiled predict with suppression in it; suppression beside torchvision's.

    python benchmarks/detection.py [--torch=PYTHON]

Untrained weights: suppression has as many candidates as it ever has. --torch names a Python that
has torchvision, whose nms then gets the same boxes (in a process of its own); without, that part
is left out. Also times a window classifier run over all windows of an image one by one and at once.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import detection
from research import models
from research.data.images.preprocessing import Preprocessing
from research.geometry.nms import nms
from research.models.windows import STRIDE, WINDOW

TORCH = """
import json, os, sys, time, torch
from torchvision.ops import nms
torch.set_num_threads(len(os.sched_getaffinity(0)))
boxes, scores, threshold, count = json.load(sys.stdin)
boxes, scores = torch.tensor(boxes), torch.tensor(scores)
best, kept = 1e9, None
for _ in range(20):
    began = time.perf_counter()
    kept = [nms(b, s, threshold)[:count].tolist() for b, s in zip(boxes, scores)]
    best = min(best, time.perf_counter() - began)
print(json.dumps([best, kept]))
"""


def fastest(run: Callable[[], Any], rounds: int) -> float:
    """Seconds of the fastest of several runs; a first one compiles."""
    jax.block_until_ready(run())
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        jax.block_until_ready(run())
        best = min(best, time.perf_counter() - began)
    return best


def time_predict(rounds: int) -> None:
    """Prints images a second of the default detector."""
    print(f"compiled predict on {jax.devices()[0].device_kind}: images/s, fastest of {rounds}")
    for batch_size, threshold in ((1, 0.01), (32, 0.01), (32, 0.0)):
        config = detection.Config(score_threshold=threshold)
        facts = {
            "class_names": list("0123456789"),
            "preprocessing": Preprocessing((64, 64), 3, mean=(80.0,), std=(50.0,)).to_json(),
            "train_examples": 1,
            "monitored": "test",
            "sizes": [],
        }
        experiment = detection.build(config, facts)
        rng = np.random.default_rng(0)
        images = rng.integers(0, 255, (batch_size, 64, 64, 3)).astype(np.uint8)
        batch = jax.device_put({"image": images})
        variables = experiment.network.init(jax.random.key(0))
        predict = jax.jit(experiment.evaluation.predict)
        seconds = fastest(lambda: predict(variables, batch), rounds)  # noqa: B023 (run at once)
        print(
            f"batch {batch_size:3}, scores above {threshold:4}: {batch_size / seconds:8.1f} "
            f"({1e3 * seconds:.1f} ms a batch)",
            flush=True,
        )


def time_suppression(rounds: int, torch: str) -> None:
    """Prints milliseconds of suppression of 300 and 1,000 boxes of 32 images."""
    print("suppression at IoU 0.5, 100 kept, of 32 images, ms")
    for count in (300, 1000):
        rng = np.random.default_rng(0)
        low = rng.uniform(0, 500, (32, count, 2))
        boxes = np.concatenate([low, low + rng.uniform(10, 120, (32, count, 2))], 2).astype("f")
        scores = rng.random((32, count)).astype("f")
        run = jax.jit(jax.vmap(lambda b, s: nms(b, s, 100)))
        placed = jax.device_put((boxes, scores))
        ours = fastest(lambda: run(*placed), rounds)  # noqa: B023 (run at once)
        line = f"{count:5} boxes: ours {1e3 * ours:8.1f}"
        if torch:
            given = json.dumps([boxes.tolist(), scores.tolist(), 0.5, 100])
            answer = subprocess.run(
                [torch, "-c", TORCH], input=given, capture_output=True, text=True, check=True
            )
            theirs, kept = json.loads(answer.stdout)
            found = run(*placed)
            same = all(
                np.asarray(found.box[i])[np.asarray(found.valid[i])].tolist() == kept[i]
                for i in range(32)
            )
            line += f", torchvision {1e3 * theirs:8.1f}, the same boxes: {same}"
        print(line, flush=True)


def time_windows(rounds: int) -> None:
    """Prints how long a classifier takes over all windows one by one, in one batch, and at once."""
    side = 96
    model = models.create("sliding_windows", num_classes=10)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(1, side, side, 3)), jnp.float32)
    variables = model.init(jax.random.key(0), image[:, :WINDOW, :WINDOW])
    places = range(0, side - WINDOW + 1, STRIDE)
    crops = jnp.concatenate(
        [image[:, i : i + WINDOW, j : j + WINDOW] for i in places for j in places]
    )
    one = jax.jit(model.apply)
    whole = jax.jit(lambda v, x: model.apply(v, x, convolutional=True))
    singly = fastest(lambda: [one(variables, crop[None]) for crop in crops], rounds)
    batched = fastest(lambda: one(variables, crops), rounds)
    at_once = fastest(lambda: whole(variables, image), rounds)
    print(
        f"{len(crops)} windows of {side} x {side} pixels: one by one {1e3 * singly:.1f} ms, as a "
        f"batch {1e3 * batched:.1f} ms, convolutionally {1e3 * at_once:.1f} ms "
        f"({batched / at_once:.1f} times as fast as the batch)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--torch", default="", help="a Python that has torchvision")
    options = parser.parse_args()
    time_predict(options.rounds)
    time_suppression(options.rounds, options.torch)
    time_windows(options.rounds)


if __name__ == "__main__":
    main()
