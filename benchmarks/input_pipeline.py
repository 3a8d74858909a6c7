"""Examples a second that the input pipeline gives, and how long a training step waits for them.

    python benchmarks/input_pipeline.py [--batch_size=128] [--step_ms=50] [--workers=2]

Each row is one way to feed a step. `rate` takes batches as fast as they come. `wait` is the share
of the time that steps of --step_ms spend waiting for their batch, while the processor is idle (as
beside an accelerator) and while it is busy (as when training on it); the target is at most 2 %
wherever the rate allows it: a source slower than batch_size / step_ms must keep the step waiting.
Rows called "plain" are what one writes without this pipeline, for comparison.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import grain
import numpy as np
from absl import flags
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from research.data import datasets
from research.data.images.preprocessing import Mapped, Preprocessing
from research.data.own.folders import FolderSplit
from research.data.sources.examples import Examples
from research.data.sources.source import Source
from research.record.progress import console

TARGET = 0.02


def photographs(folder: Path, count: int, side: int) -> FolderSplit:
    """JPEG files as a camera's: smooth structure with some grain."""
    rng = np.random.default_rng(0)
    files = []
    for i in range(count):
        coarse = rng.integers(0, 256, (side // 16, side // 12, 3)).astype(np.uint8)
        image = cv2.resize(coarse, (side * 4 // 3, side), interpolation=cv2.INTER_CUBIC)
        noise = rng.integers(0, 16, image.shape).astype(np.uint8)
        files.append(str(folder / f"{i}.jpg"))
        cv2.imwrite(files[-1], image // 2 + noise, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return FolderSplit(tuple(files), np.arange(count, dtype=np.int32) % 10)


def plain_loop(examples: Examples, size: int) -> Iterator[Any]:
    """Decodes and stacks in the training process, when the batch is wanted."""
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(len(examples))
        for start in range(0, len(order) - size + 1, size):
            rows = [examples[int(i)] for i in order[start : start + size]]
            yield {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def plain_grain(examples: Examples, size: int) -> Iterator[Any]:
    """Grain's pipeline as its documentation has it: an example an element, default buffers."""
    dataset = grain.MapDataset.source(examples).shuffle(0).repeat()
    return iter(dataset.to_iter_dataset().batch(size))


def rate(batches: Iterator[Any], size: int, seconds: float) -> float:
    """Examples a second, after a first few batches."""
    for _ in range(3):
        next(batches)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        next(batches)
        count += size
    return count / (time.perf_counter() - began)


def waiting(batches: Iterator[Any], step: Callable[[], None], seconds: float) -> float:
    """Share of the time that goes into next(batches), after a first few steps."""
    for _ in range(3):
        next(batches)
        step()
    began, waited = time.perf_counter(), 0.0
    while time.perf_counter() - began < seconds:
        asked = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - asked
        step()
    return waited / (time.perf_counter() - began)


def idle_step(milliseconds: float) -> Callable[[], None]:
    return lambda: time.sleep(milliseconds / 1e3)


def busy_step(milliseconds: float) -> Callable[[], None]:
    """Matrix products on every core, as a training step on the processor does them."""
    matrix = np.ones((512, 512), np.float32)

    def step() -> None:
        end = time.perf_counter() + milliseconds / 1e3
        while time.perf_counter() < end:
            matrix @ matrix

    return step


def ways(examples: Examples, size: int, workers: int) -> dict[str, Callable[[], Iterator[Any]]]:
    """How batches can be had, by name; plain ones first."""

    def ours(**options: Any) -> Iterator[Any]:
        return Source(examples, size, seed=0, **options).iterate()

    return {
        "plain loop": lambda: plain_loop(examples, size),
        "plain grain": lambda: plain_grain(examples, size),
        "decoded, threads": lambda: ours(cache_bytes=0),
        f"decoded, {workers} processes": lambda: ours(cache_bytes=0, workers=workers),
        "cached": ours,
    }


def show(name: str, examples: Examples, args: argparse.Namespace) -> None:
    """Measures and prints every way to feed steps with these examples."""
    table = Table("", "examples/s", "of plain loop", "wait, idle", "wait, busy", title=name)
    base = 0.0
    for way, start in ways(examples, args.batch_size, args.workers).items():
        batches = start()
        speed = rate(batches, args.batch_size, args.seconds)
        batches.close()  # type: ignore[attr-defined]
        waits = []
        for step in (idle_step(args.step_ms), busy_step(args.step_ms)):
            batches = start()
            share = waiting(batches, step, args.seconds)
            batches.close()  # type: ignore[attr-defined]
            waits.append(f"{share:.1%}{'' if share <= TARGET else ' !'}")
        base = base or speed
        table.add_row(way, f"{speed:,.0f}", f"{speed / base:.2f}", *waits)
    console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch_size", type=int, default=128, help="examples a batch")
    parser.add_argument("--step_ms", type=float, default=50, help="length of a step, milliseconds")
    parser.add_argument("--seconds", type=float, default=4, help="length of each measurement")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode")
    parser.add_argument("--photographs", type=int, default=400, help="number of JPEG files")
    parser.add_argument("--side", type=int, default=300, help="their shorter side, pixels")
    parser.add_argument("--data_dir", default="data", help="where the digits are prepared")
    args = parser.parse_args()
    flags.FLAGS.mark_as_parsed()  # grain's worker processes ask for absl's flags

    with tempfile.TemporaryDirectory() as folder:
        digits = datasets.load("digits", args.data_dir).splits["train"]
        photos = photographs(Path(folder), args.photographs, args.side)
        sets = {
            "digits 28x28, PNG": Mapped(digits, Preprocessing((28, 28), 1)),
            f"photographs {args.side * 4 // 3}x{args.side}, JPEG to 224": Mapped(
                photos, Preprocessing((224, 224), 3, "crop")
            ),
        }
        for name, examples in sets.items():
            show(name, examples, args)
    console().print(
        f"batch {args.batch_size}, step {args.step_ms:g} ms (wants "
        f"{args.batch_size / args.step_ms * 1e3:,.0f} examples/s), {os.cpu_count()} CPUs; "
        f"! is over {TARGET:.0%}"
    )


if __name__ == "__main__":
    main()
