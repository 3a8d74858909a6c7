"""JPEGs a second that a core reads for a network of 224 pixels, and so the cores that a GPU needs.

    python benchmarks/reading.py [--count=128] [--sides=375x500,750x1000] [--rounds=3]

Photographs (of scikit-image, in new sizes, quality 90) are read from folders, from array_record and
from memory, decoded whole and at a part of their size (--decode=reduced), resized to 224 pixels and
stacked to batches, by one thread on one core; each way in turn, in each round. Ratios are medians
of the rounds'. `cores` are those that read as fast as one GPU trains ResNet-50 in bfloat16, as
accelerator.json says. Augmentation is part of the compiled step, so it runs where the step does;
its rate on this core is given for runs on CPUs. The second table lets the pipeline read ahead, on
all cores, by threads and by processes.
"""

import argparse
import functools
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from absl import flags
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from research.data.config import Resize
from research.data.images.preprocessing import Mapped, Preprocessing
from research.data.images.reading import read_with
from research.data.own.folders import FolderSplit
from research.data.sources.examples import Arrays, Examples, decode
from research.data.sources.source import Source
from research.data.stored.sets import PreparedSplit, install
from research.data.tasks.classification import LabelledImage
from research.record.progress import console
from research.runtime import reuse_memory

SIDE = 224
RESIZES: tuple[Resize, ...] = ("crop", "pad")
ACCELERATOR = Path(__file__).resolve().parent / "accelerator.json"


class Seconds(NamedTuple):
    """What something took."""

    wall: float
    processor: float  # of all threads of this process


def demand() -> tuple[str, float]:
    """The device of accelerator.json, and the images a second that ResNet-50 trains there."""
    measured = json.loads(ACCELERATOR.read_text())
    rows = measured["parts"]["training"]["rows"]
    return measured["device"], next(r["images a second"] for r in rows if r["what"] == "ours")


def photographs(count: int, height: int, width: int) -> Iterator[bytes]:
    """Encoded JPEGs: photographs that scikit-image brings, cut and mirrored at random."""
    import skimage.data

    names = ("astronaut", "coffee", "chelsea", "rocket")  # no download
    found = [getattr(skimage.data, name)() for name in names]
    rng = np.random.default_rng(0)
    for k in range(count):
        image = found[k % len(found)]
        rows, columns = image.shape[:2]
        scale = min(rows / height, columns / width) * rng.uniform(0.8, 1)
        cut = int(scale * height), int(scale * width)
        top, left = (rng.integers(0, n - c + 1) for n, c in zip((rows, columns), cut, strict=True))
        image = image[top : top + cut[0], left : left + cut[1], ::-1]
        image = cv2.resize(
            image[:, :: rng.choice([-1, 1])], (width, height), interpolation=cv2.INTER_CUBIC
        )
        yield cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def in_folder(encoded: Sequence[bytes], folder: Path) -> FolderSplit:
    files = [folder / f"{k}.jpg" for k in range(len(encoded))]
    for file, data in zip(files, encoded, strict=True):
        file.write_bytes(data)
    return FolderSplit(tuple(map(str, files)), np.zeros(len(files), np.int32))


@functools.cache
def builder() -> Any:
    """A TFDS builder of `encoded` JPEGs, all of one class."""
    import tensorflow_datasets as tfds

    class Photographs(tfds.core.GeneratorBasedBuilder):
        """Photographs."""

        VERSION = tfds.core.Version("1.0.0")
        encoded: Sequence[bytes] = ()

        def _info(self) -> tfds.core.DatasetInfo:
            image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
            label = tfds.features.ClassLabel(num_classes=1)
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            for k, data in enumerate(self.encoded):
                yield k, {"image": io.BytesIO(data), "label": 0}

    return Photographs


def in_array_record(encoded: Sequence[bytes], folder: Path) -> PreparedSplit:
    builder().encoded = encoded
    made = install(lambda x: builder()(data_dir=x, file_format="array_record"), folder)
    return PreparedSplit(str(made), "train", LabelledImage("image", "label", 3))


def fitted(examples: Any, preprocessing: Preprocessing) -> Mapped:
    """The examples as `pipeline.fitted` reads them, where --cache_mb holds none."""
    return Mapped(read_with(examples, reduce=preprocessing.reduce), preprocessing)


def ways(folder: FolderSplit, stored: PreparedSplit, scratch: Path) -> dict[str, Examples]:
    """How images can be had, by name; the first is what others are compared with."""
    found: dict[str, Examples] = {}
    for resize in RESIZES:
        for split, name in ((folder, "folder"), (stored, "array_record")):
            for way in ("full", "reduced"):
                how = Preprocessing((SIDE, SIDE), 3, resize, decode=way)
                found[f"{name}, --resize={resize} --decode={way}"] = fitted(split, how)
    held = decode(found["folder, --resize=pad --decode=full"])
    np.save(scratch / "decoded.npy", held.fields["image"])
    mapped = np.load(scratch / "decoded.npy", mmap_mode="r")
    found["memory (--cache_mb)"] = held
    found["a file of decoded images, mapped (no option)"] = Arrays({**held.fields, "image": mapped})
    return found


def distance(folder: FolderSplit, resize: Resize) -> str:
    """How far images are from those of whole decoding: reduced, and by another way to resize."""
    whole = Preprocessing((SIDE, SIDE), 3, resize)
    others = replace(whole, decode="reduced"), replace(whole, interpolation="bilinear")
    truth, *found = (
        np.stack([fitted(folder, how)[k]["image"] for k in range(min(len(folder), 8))])
        for how in (whole, *others)
    )
    reduced, bilinear = (np.sqrt(np.mean((x.astype(float) - truth) ** 2)) for x in found)
    return (
        f"--resize={resize}, RMS from whole decoding, of 255: {reduced:.1f} by --decode=reduced; "
        f"{bilinear:.1f} by Pillow's bilinear filter"
    )


def one_pass(source: Source) -> None:
    """Reads every batch."""
    for step in range(source.num_batches):
        source.batch(step)


def seconds(call: Callable[[], Any]) -> Seconds:
    """What a call takes."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return Seconds(time.perf_counter() - wall, time.process_time() - processor)


def augmenting(images: np.ndarray) -> Callable[[], Any]:
    """A mirror, a crop and colours of a batch, compiled for this processor."""
    import jax

    from research.data.config import Augmentation
    from research.data.images.augment import augment_batch

    options = Augmentation(mirror=True, crop_padding=16, brightness=0.2, contrast=0.2)
    index = np.arange(len(images), dtype=np.int32)
    batch = {"image": images, "index": index, "occurrence": np.zeros_like(index)}
    eye = np.eye(3, dtype=np.float32)
    call = jax.jit(lambda key, x: augment_batch(options, key, x, eye)[1])
    return lambda: jax.block_until_ready(call(jax.random.key(0), batch))


def by_one_core(found: dict[str, Examples], args: argparse.Namespace) -> dict[str, list[Seconds]]:
    """Seconds of a pass over each way's examples, in turns."""
    cv2.setNumThreads(1)
    calls: dict[str, Callable[[], Any]] = {}
    for name, examples in found.items():
        source = Source(examples, args.batch_size, cache_bytes=0)
        calls[name] = functools.partial(one_pass, source)
    first = Source(next(iter(found.values())), args.batch_size, cache_bytes=0).batch(0)["image"]
    times = -(-args.count // args.batch_size)
    once = augmenting(first)
    calls["augmentation alone, on the processor"] = lambda: [once() for _ in range(times)]
    for call in calls.values():
        call()  # opens files, compiles
    taken: dict[str, list[Seconds]] = {name: [] for name in calls}
    for _ in range(args.rounds):
        for name, call in calls.items():
            taken[name].append(seconds(call))
    return taken


def ahead(examples: Examples, workers: int, args: argparse.Namespace) -> float:
    """Images a second of the wall clock, read ahead by threads (0) or so many processes."""
    batches = Source(examples, args.batch_size, seed=0, cache_bytes=0, workers=workers).iterate()
    for _ in range(4):
        next(batches)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < args.seconds:
        next(batches)
        count += args.batch_size
    rate = count / (time.perf_counter() - began)
    batches.close()
    return rate


def show(taken: dict[str, list[Seconds]], title: str, count: int, wanted: float) -> None:
    """Prints rates of each way beside the first's."""
    table = Table("", "JPEGs/s, wall", "a CPU second", "ratio", "cores for a GPU", title=title)
    base = next(iter(taken.values()))
    for name, rounds in taken.items():
        wall, processor = (count / statistics.median(c) for c in zip(*rounds, strict=True))
        ratio = statistics.median(
            b.processor / r.processor for b, r in zip(base, rounds, strict=True)
        )
        cores = wanted / processor
        shown = f"{float(f'{cores:.2g}'):g}"
        table.add_row(name, f"{wall:,.0f}", f"{processor:,.0f}", f"{ratio:.2f}", shown)
    console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=128, help="JPEGs of each size")
    parser.add_argument("--batch_size", type=int, default=32, help="images a batch")
    parser.add_argument("--sides", default="375x500,750x1000", help="heights x widths, pixels")
    parser.add_argument("--rounds", type=int, default=5, help="passes over all of them, in turns")
    parser.add_argument("--seconds", type=float, default=4, help="of each row that reads ahead")
    parser.add_argument("--workers", default="1,2", help="numbers of processes that read ahead")
    args = parser.parse_args()
    flags.FLAGS.mark_as_parsed()  # grain's worker processes ask for absl's flags
    reuse_memory()  # as launch.py does
    every = os.sched_getaffinity(0)
    device, wanted = demand()
    console().print(f"{device} trains ResNet-50 (bfloat16, {SIDE} pixels): {wanted:,.0f} images/s")

    for sides in args.sides.split(","):
        height, width = map(int, sides.split("x"))
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            encoded = list(photographs(args.count, height, width))
            size = sum(map(len, encoded)) / args.count / 1024
            folder, stored = in_folder(encoded, scratch), in_array_record(encoded, scratch / "set")
            found = ways(folder, stored, scratch)
            os.sched_setaffinity(0, {max(every)})
            try:
                taken = by_one_core(found, args)
            finally:
                os.sched_setaffinity(0, every)
            for resize in RESIZES:
                console().print(distance(folder, resize))
            show(taken, f"{height} x {width}, {size:.0f} KiB, one core", args.count, wanted)
            table = Table("read ahead", "JPEGs/s, wall", "of threads", title=f"{len(every)} cores")
            for way in ("full", "reduced"):
                examples = found[f"folder, --resize=pad --decode={way}"]
                base = 0.0
                for workers in (0, *map(int, filter(None, args.workers.split(",")))):
                    rate = ahead(examples, workers, args)
                    base = base or rate
                    kind = f"--workers={workers}" if workers else "threads"
                    table.add_row(f"--decode={way}, {kind}", f"{rate:,.0f}", f"{rate / base:.2f}")
            console().print(table)


if __name__ == "__main__":
    main()
