"""A study that is killed, beside one that is not; what a run costs before its first step.

    python benchmarks/studies.py
    python benchmarks/studies.py --steps=50 --repeats=2

Three variants of the default classification with five seeds, 200 steps each, two runs at a time.
The one study is left alone; the other is killed twice by SIGKILL, all its processes at once, and
once by SIGTERM, each time after some more of its steps, and started again. Both must end with the
same table.

Then, in one process, the seconds from its launch to its first step, and from the end of each run
to the first step of the next. The two variants differ in what no program holds (--keep), and seeds
are arguments of programs: all but the first run find their programs in the cache.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = ("--optimizer=sgd --learning_rate=0.1", "--optimizer=adam", "--optimizer=momentum")


def begin(folder: Path, *flags: str) -> "subprocess.Popen[bytes]":
    """Starts a study as the leader of a group of processes."""
    command = [sys.executable, str(ROOT / "launch.py"), "--experiment=classification"]
    command += ["--mode=study", f"--workdir={folder}", *flags]
    with (folder.parent / f"{folder.name}.txt").open("ab") as log:
        return subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log)


def logged(folder: Path) -> int:
    """Returns how many lines all runs have logged."""
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("*/seed=*/metrics.jsonl"))


def wait_for(process: "subprocess.Popen[bytes]", folder: Path, lines: int) -> None:
    """Waits until a study has logged some lines more."""
    before = logged(folder)
    while logged(folder) < before + lines:
        if process.poll() is not None:
            raise SystemExit(f"{folder} ended before it could be killed; ask for more steps.")
        time.sleep(0.05)


def table(folder: Path) -> list[dict[str, str]]:
    """Returns each run's metrics, without what they cost."""
    with (folder / "compare.csv").open() as file:
        return [
            {k: v for k, v in row.items() if "/" in k or k in ("variant", "seed", "failure")}
            for row in csv.DictReader(file)
        ]


def fingerprints(folder: Path) -> dict[str, str]:
    """Returns the fingerprint of each run's final parameters."""
    return {
        str(file.parent.relative_to(folder)): json.loads(file.read_text())["fingerprint"]
        for file in sorted(folder.glob("*/seed=*/result.json"))
    }


def cut(place: Path, flags: list[str]) -> None:
    """Shows that a study that was killed ends as one that was not."""
    began = time.perf_counter()
    if begin(place / "whole", *flags).wait() != 0:
        raise SystemExit((place / "whole.txt").read_text()[-2000:])
    print(f"undisturbed: {time.perf_counter() - began:.0f} s")
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        process = begin(place / "cut", *flags)
        wait_for(process, place / "cut", 12)
        os.killpg(process.pid, number)
        code = process.wait()
        done = len(list((place / "cut").glob("*/seed=*/result.json")))
        print(f"{number.name}: exit code {code}, {done} runs complete")
    code = begin(place / "cut", *flags).wait()
    whole, pieces = table(place / "whole"), table(place / "cut")
    same = fingerprints(place / "whole") == fingerprints(place / "cut")
    print(f"started again: exit code {code}, {len(pieces)} rows")
    print(f"the same table: {pieces == whole}; the same parameters: {same}")


def first_steps(place: Path, flags: list[str]) -> None:
    """Measures what lies before the first step of a process, and of the next cells in it."""
    folder, launched, stepped = place / "first", time.time(), dict[Path, float]()
    process = begin(folder, *flags, "--steps=20", "--log_every=1", "--repeats=2")
    while process.poll() is None:
        for file in folder.glob("*/seed=*/metrics.jsonl"):
            if file.parent not in stepped and b"\n" in file.read_bytes():
                stepped[file.parent] = time.time()
        time.sleep(0.01)
    if process.returncode != 0:
        raise SystemExit((place / "first.txt").read_text()[-2000:])
    since = launched
    for run, moment in sorted(stepped.items(), key=lambda item: item[1]):
        compiled = json.loads((run / "result.json").read_text())["compile_seconds"]
        print(
            f"{run.relative_to(folder)}: first step after {moment - since:.2f} s; the whole run "
            f"compiled, or read from the cache, for {compiled:.2f} s"
        )
        since = (run / "result.json").stat().st_mtime


def main() -> None:
    """Prints both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--part", choices=["cut", "first", "both"], default="both")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        common = [f"--compilation_cache={place / 'cache'}", f"--data_dir={place / 'data'}"]
        if args.part != "first":
            size = [f"--steps={args.steps}", f"--repeats={args.repeats}", "--log_every=10"]
            cut(place, [*common, *size, *(f"--variant={v}" for v in VARIANTS), "--jobs=2"])
        if args.part != "cut":
            first_steps(place, [*common, "--variant=--keep=2", "--variant=--keep=3"])


if __name__ == "__main__":
    main()
