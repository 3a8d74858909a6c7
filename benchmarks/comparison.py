"""What it takes to compare many long runs: seconds and the largest memory of the process.

    python benchmarks/comparison.py
    python benchmarks/comparison.py --sides=20 --runs=10 --lines=2000

Runs are made up, in a temporary folder: each logs its loss at every line, and an accuracy at every
tenth. Timed is all that --mode=compare does: reading, statistics, pictures, page.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from research.commands.compare import findings_of, show


def make_up(folder: Path, seed: int, lines: int, value: float) -> None:
    """Writes the folder of a run that logged so many lines."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    begun = {
        "experiment": "classification",
        "config": {"seed": seed, "batch_size": 32, "optimizer": folder.parent.name},
        "plan": {"steps": 50 * lines},
    }
    (folder / "config.json").write_text(json.dumps(begun))
    with open(folder / "metrics.jsonl", "w") as log:
        for number in range(1, lines + 1):
            line = {
                "step": 50 * number,
                "train/loss": 1 / number + 0.1 * random.random(),
                "train/accuracy": random.random(),
                "train/learning_rate": 0.001 * random.random(),
            }
            if number % 10 == 0:
                line |= {f"test/accuracy/{k}": random.random() for k in range(10)}
                line["test/accuracy"] = value * number / lines
            log.write(json.dumps({**line, "seconds": 1.5 * number}) + "\n")
    result = {
        "step": 50 * lines,
        "seconds": 1.5 * lines,
        "best": ["test/accuracy", "max"],
        "metrics": {"test/accuracy": value},
        "protocol": {"accuracy": "share of examples"},
    }
    (folder / "result.json").write_text(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, default=20)
    parser.add_argument("--runs", type=int, default=10, help="of each side")
    parser.add_argument("--lines", type=int, default=2000, help="that each run logged")
    args = parser.parse_args()
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        groups = {
            f"side{side}": [Path(place, f"side{side}", f"seed={n}") for n in range(args.runs)]
            for side in range(args.sides)
        }
        for folders in groups.values():
            for seed, folder in enumerate(folders):
                make_up(folder, seed, args.lines, 0.9 + 0.01 * random.normal())
        out = Path(place, "out")
        out.mkdir()
        wall, processor = time.perf_counter(), time.process_time()
        found = findings_of(groups, difference=0.005)
        print(f"read and compared  {time.perf_counter() - wall:.2f} s")
        show(found, out)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        size = sum(file.stat().st_size for file in Path(place).rglob("metrics.jsonl")) / 2**20
        print(
            f"{args.sides * args.runs} runs of {args.lines} lines, {size:.0f} MiB of logs: "
            f"{wall:.1f} s, {processor:.1f} s of processor time; {peak:.2f} GiB at most"
        )


if __name__ == "__main__":
    main()
