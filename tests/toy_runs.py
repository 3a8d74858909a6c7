"""Runs of the smallest experiment: twelve steps on images that can be learned."""

import dataclasses
import json
import threading
from collections.abc import Callable

import numpy as np
import toys

from research.data.sources.examples import Arrays
from research.data.sources.source import Source
from research.distributed.folder import open_run
from research.experiment import Data
from research.training import parallel as parallel_lib
from research.training.config import TrainingConfig
from research.training.loop import train


def source(count, seed=None):
    rng = np.random.default_rng(count)
    images = rng.normal(size=(count, 8, 8, 3)).astype("f")
    labels = (images.mean((1, 2, 3)) > 0).astype("i")  # learnable
    return Source(Arrays({"image": images, "label": labels}), 16, seed)


def data():
    return Data(source(40, seed=0), {"test": source(21)})


CONFIG = TrainingConfig(
    steps=12, batch_size=16, eval_every=5, checkpoint_every=4, log_every=3, parallel="single"
)


def run(folder, config=CONFIG, experiment=None):
    parallel = parallel_lib.create(config.parallel, config.batch_size, config.accumulate)
    with open_run(folder, "toy", config) as record:
        return train(experiment or toys.experiment(data=data), config, parallel, record)


def lines(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@dataclasses.dataclass(frozen=True, eq=False)
class StopsAt(Source):
    """A source that raises, or sends a signal, where batch `stop` is made for the first time."""

    stop: int = 0
    action: Callable[[], None] = lambda: None
    # Training and the estimate of batch statistics make batches in threads of their own.
    first: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def batch(self, step):
        if step == self.stop and self.first.acquire(blocking=False):
            self.action()
        return super().batch(step)


def interrupted(stop, action):
    def broken():
        train = StopsAt(source(40).examples, 16, 0, stop=stop, action=action)
        return Data(train, {"test": source(21)})

    return toys.experiment(data=broken)
