"""Deterministic batches: each is a pure function of (seed, step), so resuming needs no state.

An epoch's order is NumPy's frozen `RandomState` permutation (NEP 19) of (seed, epoch): the same
under every NumPy version, on every machine, for any number of workers. Grain's `index_shuffle`
would need no memory, but it walks a domain of at least 2**16 numbers whatever the size of the set:
a batch of 128 costs 1.8 ms out of 4,000 examples and 48 ms out of 100. A permutation costs 4 bytes
an example, and 0.1 s an epoch of ImageNet.
"""

import dataclasses
import functools
import gc
import hashlib
import os
from collections.abc import Callable, Generator, Sequence
from typing import Any

import grain
import numpy as np
from jaxtyping import Bool, Int, Int32, Int64

from research.code.files import Code
from research.code.running import install, installed
from research.data.sources.examples import (
    Arrays,
    Chosen,
    Examples,
    decode,
    decoded_bytes,
    digest,
    file_of,
    read_many,
)
from research.distributed import group as distributed
from research.errors import UserError
from research.runtime import reuse_memory
from research.spacing import spaced

Batch = dict[str, np.ndarray]

_ADDED = ("index", "mask", "occurrence")  # fields that a `Source` adds to a batch
_ENDLESS = 2**40  # batches: a bound for streams, which otherwise have no end
_FEW = 16  # batches: threads have read them before processes have started


@functools.lru_cache(maxsize=4)
def permutation(length: int, seed: int, epoch: int) -> Int32[np.ndarray, " length"]:
    """Returns an epoch's order; seed and epoch are hashed together, so no two orders agree."""
    bits = np.random.MT19937(np.random.SeedSequence([seed, epoch]))
    order = np.random.RandomState(bits).permutation(length).astype(np.int32)
    order.setflags(write=False)  # the cache hands out this very array
    return order


def occurrences(index: Int32[np.ndarray, " row"]) -> Int32[np.ndarray, " row"]:
    """Counts for each row of a batch the rows before it with the same example: 0, 1, ..."""
    order = np.argsort(index, kind="stable")
    _, first, count = np.unique(index[order], return_index=True, return_counts=True)
    occurrence = np.empty_like(index)
    occurrence[order] = np.arange(len(index)) - np.repeat(first, count)
    return occurrence


def _start(codes: Sequence[Code], *_: Any) -> None:
    """Prepares a worker process as launch.py prepares its own; grain gives further arguments."""
    reuse_memory()  # decoding takes and frees a block for every image
    install(codes)  # processes import what they get by name: a person's own, from memory


def _own(batch: Batch) -> Batch:
    """Copies a worker's arrays, which are views of shared memory that is not freed at exit."""
    return {name: np.array(values) for name, values in batch.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Batches of a split: an endless shuffled stream (seed), or one pass in order (None).

    A batch holds the examples' fields stacked, "index" int32 [B] (position in the split) and
    "mask" bool [B]; of a stream also "occurrence" int32 [B], see `occurrences`. A stream shuffles
    each epoch anew, and its batches run across the ends of epochs, so that every example comes
    exactly once an epoch; `order` may choose otherwise. The last batch of a pass is padded with
    example 0 where mask is False.

    Attributes:
      examples: decoded, of fixed shapes.
      batch_size: of the global batch.
      seed: at least 0, or None.
      order: (step) -> int [batch_size], the positions that batch `step` of a stream takes, instead
        of a shuffle; a pure function, which can be pickled for worker processes.
      cache_bytes: a split smaller than this is decoded once, and kept in memory.
      workers: processes that decode what is not cached; 0 decodes in threads, which suits
        photographs (OpenCV frees the interpreter) more than many small images. Processes take
        seconds to start; a pass of a few batches is left to threads.
      collate: a pure function of each finished batch and of the positions in the split that the
        global batch holds, such as one that cuts captions to the length of their bucket. Batches
        may then differ in shape, but must not from one part of a global batch to another.
      part: (i, n): `batch` returns the i-th of n equal parts of each global batch; by default this
        process' part.
      alone: examples differ in shape, so a batch of a pass holds one, beside padding; they are
        not held in memory.
      originals: the same examples, or their scored fields, at their original sizes; see
        `Evaluator.tally`.
      large: fields that evaluation does not hold for a whole split, such as images.
      files: what the examples were decoded from, which may know their files.
    """

    examples: Examples
    batch_size: int
    seed: int | None = None
    cache_bytes: int = 2**30
    workers: int = 0
    collate: Callable[[Batch, Int32[np.ndarray, " row"]], Batch] | None = None
    part: tuple[int, int] = dataclasses.field(default_factory=distributed.part)
    order: Callable[[int], np.ndarray] | None = None
    alone: bool = False
    originals: Examples | None = None
    large: tuple[str, ...] = ("image",)
    files: Examples | None = None

    def __post_init__(self) -> None:
        if not len(self.examples):
            raise UserError("the split holds no examples")
        if self.batch_size < 1 or self.batch_size % self.part[1]:
            raise UserError(
                f"batch size {self.batch_size} is not a positive multiple of the number of "
                f"processes that share a batch, {self.part[1]}"
            )
        if self.seed is not None and self.seed < 0:
            raise UserError(f"seed {self.seed} is negative; seeds are integers from 0")
        if self.order is not None and self.seed is None:
            raise ValueError("only a stream, which has a seed, takes an order")
        if self.alone and self.seed is not None:
            raise ValueError("only a pass, which has no seed, takes examples alone")

    @property
    def num_batches(self) -> int:
        """Batches of one pass, the padded last one included."""
        return -(-len(self.examples) // (1 if self.alone else self.batch_size))

    def chosen(self, positions: Int[np.ndarray, " kept"]) -> "Source":
        """Returns the same source over the examples at some positions."""

        def of(examples: Examples | None) -> Chosen | None:
            return None if examples is None else Chosen(examples, positions)

        return dataclasses.replace(
            self,
            examples=Chosen(self.examples, positions),
            originals=of(self.originals),
            files=of(self.files),
        )

    def in_split(self, rows: Int[np.ndarray, " row"]) -> Int64[np.ndarray, " row"]:
        """Returns which examples of their split these are, whatever `chosen` left out of it."""
        places = self.examples.positions if isinstance(self.examples, Chosen) else None
        return np.asarray(rows if places is None else places[rows], np.int64)

    def rows_of(self, index: Int[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns where the examples of these numbers in their split stand: undoes `in_split`.

        Raises:
          ValueError: for an example that `chosen` left out.
        """
        every = self.in_split(np.arange(len(self.examples)))
        order = np.argsort(every)
        place = np.searchsorted(every[order], index).clip(max=len(every) - 1)
        rows: np.ndarray = order[place]
        if (every[rows] != index).any():
            raise ValueError("some of these examples are not in the source")
        return rows

    def files_of(self, index: Int[np.ndarray, " row"]) -> tuple[str, ...]:
        """Returns the examples' files; () where they are none of a person's own."""
        found = () if self.files is None else tuple(file_of(self.files, i) for i in index.tolist())
        return found if any(found) else ()

    @functools.cached_property
    def memory(self) -> Arrays | None:
        """Returns the decoded split, or None where it is too large for cache_bytes."""
        if isinstance(self.examples, Arrays):
            return self.examples
        fits = not self.alone and decoded_bytes(self.examples) < self.cache_bytes
        return decode(self.examples) if fits else None

    def rows(self, step: int) -> tuple[Int32[np.ndarray, " row"], Bool[np.ndarray, " row"]]:
        """Returns the index and mask of this part of batch `step`, without reading any example."""
        return self._rows(step, *self.part)

    def _rows(
        self, step: int, i: int, n: int
    ) -> tuple[Int32[np.ndarray, " row"], Bool[np.ndarray, " row"]]:
        """Returns the index and mask of the i-th of n parts of batch `step`."""
        local = self.batch_size // n
        if self.alone:
            return np.full(local, step, np.int32), i * local + np.arange(local) == 0
        if self.order is not None:
            index = self.order(step)[i * local : (i + 1) * local].astype(np.int32)
            return index, np.ones(local, bool)
        first = step * self.batch_size + i * local
        position = np.arange(first, first + local)  # in the stream, int64
        if self.seed is None:
            mask = position < len(self.examples)
            return np.where(mask, position, 0).astype(np.int32), mask
        epochs, offsets = np.divmod(position, len(self.examples))
        index = np.empty(local, np.int32)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            order = permutation(len(self.examples), self.seed, int(epoch))
            index[here] = order[offsets[here]]
        return index, np.ones(local, bool)

    def batch(self, step: int) -> Batch:
        """Returns batch `step`, counted from 0: a pure function of the seed and the step."""
        index, mask = self.rows(step)
        whole = self._rows(step, 0, 1)[0] if self.part[1] > 1 else index  # of the global batch
        batch = self._read(index) | {"index": index, "mask": mask}
        if self.seed is not None:
            first = self.part[0] * len(index)
            batch["occurrence"] = occurrences(whole)[first : first + len(index)]
        return batch if self.collate is None else self.collate(batch, whole)

    def sample(self) -> Batch:
        """Returns a batch of evenly spaced examples of the split, padded with the first of them."""
        return self.picked(spaced(len(self.examples), 1 if self.alone else self.batch_size))

    def picked(self, chosen: Int[np.ndarray, " few"]) -> Batch:
        """Returns a batch of some examples, no more than fit into it, padded with the first."""
        index = np.full(self.batch_size, chosen[0], np.int32)
        index[: len(chosen)] = chosen
        mask = np.arange(self.batch_size) < len(chosen)
        local = self.batch_size // self.part[1]
        here = slice(self.part[0] * local, (self.part[0] + 1) * local)
        batch = self._read(index[here]) | {"index": index[here], "mask": mask[here]}
        return batch if self.collate is None else self.collate(batch, index)

    def _read(self, index: Int32[np.ndarray, " row"]) -> Batch:
        """Reads the examples at some positions, and stacks their fields."""
        if self.memory is not None:
            fields = {name: values[index] for name, values in self.memory.fields.items()}
        else:
            wanted = list(dict.fromkeys(index.tolist()))  # padding repeats an example
            read = dict(zip(wanted, read_many(self.examples, wanted), strict=True))
            fields = {
                name: np.stack([read[i][name] for i in index.tolist()])
                for name in read[int(index[0])]
            }
        if not fields.keys().isdisjoint(_ADDED):
            raise ValueError(f"examples may not have fields {', '.join(_ADDED)}: {sorted(fields)}")
        return fields

    def iterate(self, start: int = 0, stop: int | None = None) -> Generator[Batch, None, None]:
        """Yields batch(start), batch(start + 1), ..., made ahead of time in the background.

        Args:
          stop: the first batch not to yield; by default a pass ends and a stream goes on for ever.

        Errors are raised here, in the consumer. Closing the generator frees threads and processes.
        """
        if stop is None:
            stop = self.num_batches if self.seed is None else _ENDLESS
        batches = grain.MapDataset.range(start, stop).map(self.batch)
        processes = self.memory is None and self.workers and stop - start > _FEW
        # An element of this pipeline is a whole batch, so buffers are counted in batches.
        if self.memory is not None:
            ahead = batches.to_iter_dataset(grain.ReadOptions(1, 2))
        elif processes:
            ahead = batches.to_iter_dataset(grain.ReadOptions(1, 1)).mp_prefetch(
                grain.MultiprocessingOptions(self.workers, per_worker_buffer_size=2),
                worker_init_fn=functools.partial(_start, installed()),
            )
        else:
            threads = os.cpu_count() or 1
            ahead = batches.to_iter_dataset(grain.ReadOptions(threads, 2 * threads))
        iterator = iter(ahead)
        try:
            yield from map(_own, iterator) if processes else iterator
        finally:
            iterator.close()
            if processes:
                # Grain's iterators refer to each other, and the last ones to shared memory.
                del iterator, ahead
                gc.collect()

    def content(self) -> str:
        """Returns the sha256 of the split: of 64 examples where it is not held in memory."""
        return digest(self.memory or self.examples, len(self.examples) if self.memory else 64)

    def fingerprint(self) -> str:
        """Returns the sha256 of the data, the first epoch's start and the batch size."""
        length = len(self.examples)
        if self.order is not None:
            order = np.concatenate([self.order(step) for step in range(8)])
        else:
            order = np.arange(length) if self.seed is None else permutation(length, self.seed, 0)
        state = hashlib.sha256(digest(self.memory or self.examples).encode())
        state.update(f"batch size {self.batch_size}".encode())
        state.update(order[:10_000].astype("<i4").tobytes())
        return state.hexdigest()
