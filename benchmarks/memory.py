"""Resident memory of a run as steps go by: it must not grow.

    python benchmarks/memory.py

Trains LeNet-5 for 2,000 steps with logging, evaluation and checkpoints as by default, and compares
memory after 500 and after 2,000 steps (promised: within 2 %).
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import classification
from research.record.run_folder import RunFolder
from research.runtime import reuse_memory
from research.training import loop, parallel


class WatchedFolder(RunFolder):
    """Notes the process' resident memory whenever a line is logged."""

    resident: dict[int, int]

    def log(self, step: int, metrics: Mapping[str, float], warning: str = "") -> None:
        super().log(step, metrics, warning)
        self.resident[step] = psutil.Process().memory_info().rss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="lenet5")
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    reuse_memory()  # as launch.py does
    config = classification.Config(
        model=options.model,
        batch_size=16,
        data_dir=options.data_dir,
        steps=options.steps,
        log_every=50,
    )
    experiment = classification.build(config)
    where = parallel.create(config.parallel, config.batch_size)
    with (
        tempfile.TemporaryDirectory() as folder,
        WatchedFolder(Path(folder), "classification", config) as run,
    ):
        run.resident = {}
        loop.train(experiment, config, where, run)
    resident = run.resident
    early, late = resident[options.steps // 4], resident[options.steps]
    for step in sorted(resident)[:: max(len(resident) // 8, 1)]:
        print(f"step {step:6d}  {resident[step] / 2**20:8.1f} MiB")
    print(f"after {options.steps} steps / after {options.steps // 4}: {late / early:.4f}")


if __name__ == "__main__":
    main()
