"""What failures cost: the default command killed, asked to stop, and run for long.

    python benchmarks/failures.py kills --count=50
    python benchmarks/failures.py signals --count=12
    python benchmarks/failures.py soak --steps=10000

Each takes long, so that all can be run in parts: --seconds ends a part, and the same command goes
on in --workdir, where what was counted so far is kept. Nothing may be lost: after each kill or
signal the same command goes on, and the run that comes out of many has the parameters of an
undisturbed one, bit for bit, and the same lines in its log, none twice.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
# Saves and evaluations take a third of the time, so that many kills land in them.
FLAGS = ["--steps=60", "--eval_every=10", "--checkpoint_every=5", "--log_every=5"]
SIGNALS = {signal.SIGTERM: 143, signal.SIGUSR1: 138, signal.SIGINT: 130}


def command(folder: Path, data: Path, *flags: str) -> list[str]:
    """The default command of a folder."""
    launcher = [sys.executable, str(ROOT / "launch.py"), "--experiment=classification"]
    return [*launcher, f"--workdir={folder}", f"--data_dir={data}", *flags]


def run_whole(folder: Path, data: Path) -> None:
    """An undisturbed run, which also says how many seconds the rest may take."""
    if not (folder / "result.json").exists():
        subprocess.run(
            command(folder, data, *FLAGS), check=True, stdout=subprocess.DEVNULL, timeout=600
        )


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of a log, without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def differs(folder: Path, whole: Path) -> list[str]:
    """What of a run is not an undisturbed run's."""
    ours, theirs = (json.loads((f / "result.json").read_text()) for f in (folder, whole))
    found = [name for name in ("fingerprint", "metrics") if ours[name] != theirs[name]]
    return found + ["log"] * (log_of(folder) != log_of(whole))


def lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    yield from process.stdout


def disturb(folder: Path, data: Path, number: int, chance: random.Random, preparing: bool) -> str:
    """Starts the command, kills it at a random moment, and says in what it was killed.

    Returns:
      "" where it had finished before.
    """
    place = folder.parent / f"data{number}" if preparing else data
    before = unfinished(folder)
    with subprocess.Popen(
        command(folder, place, *FLAGS), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        wanted = "preparing" if preparing else "step "
        for line in lines_of(process):
            if line.startswith(wanted):
                break
        time.sleep(chance.uniform(0, 2.0 if preparing else 1.2))
        alive = process.poll() is None
        process.kill()
        process.wait()
    if preparing:
        whole = list(place.rglob("features.json"))
        assert all((mark.parent / "checksums.json").exists() for mark in whole), place
        shutil.rmtree(place, ignore_errors=True)
        return "preparation" if alive else ""
    saving = unfinished(folder).items() - before.items()
    return ("save" if saving else "step or evaluation") if alive else ""


def unfinished(folder: Path) -> dict[str, int]:
    """Checkpoints that a killed process left, and when something was last made in them."""
    latest = (folder / "checkpoints").glob("latest/*")
    return {p.name: p.stat().st_mtime_ns for p in latest if not (p / "checksums.json").exists()}


def ask_to_stop(folder: Path, data: Path, chance: random.Random) -> str:
    """Sends a random signal at a random moment, and checks the exit code; "" if it came late."""
    sent = chance.choice(sorted(SIGNALS))
    with subprocess.Popen(
        command(folder, data, *FLAGS), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in lines_of(process):
            if line.startswith("step "):
                break
        time.sleep(chance.uniform(0, 1.0))
        process.send_signal(sent)
        process.communicate()
    if process.returncode == 0:
        return ""
    assert process.returncode == SIGNALS[sent], (sent, process.returncode)
    return sent.name


def repeat(kind: str, count: int, seconds: float, place: Path) -> None:
    """Disturbs runs until `count` times are reached, in this part and those before."""
    state_file = place / f"{kind}.json"
    state = json.loads(state_file.read_text()) if state_file.exists() else {}
    state = {"tries": 0, "in": {}, "runs": 0, "differing": [], **state}
    until, data, whole = time.monotonic() + seconds, place / "data", place / "whole"
    run_whole(whole, data)
    while sum(state["in"].values()) < count and time.monotonic() < until:
        state["tries"] += 1
        chance = random.Random(state["tries"])
        folder = place / f"{kind}{state['runs']}"
        if kind == "signals":
            said = ask_to_stop(folder, data, chance)
        else:
            said = disturb(folder, data, state["tries"], chance, state["tries"] % 8 == 0)
        if said:
            state["in"][said] = state["in"].get(said, 0) + 1
        if (folder / "result.json").exists():
            _compare(folder, whole, state)
        state_file.write_text(json.dumps(state))
    last = place / f"{kind}{state['runs']}"
    if sum(state["in"].values()) >= count and last.exists():
        subprocess.run(command(last, data, *FLAGS), check=True, stdout=subprocess.DEVNULL)
        _compare(last, whole, state)
        state_file.write_text(json.dumps(state))
    print(f"{kind}: {sum(state['in'].values())} of {count}, in {state['in']}")
    print(f"runs that came out of them: {state['runs']}; differing: {state['differing'] or 'none'}")


def _compare(folder: Path, whole: Path, state: dict[str, Any]) -> None:
    """Counts a finished run, and what of it is another than the undisturbed run's."""
    state["differing"] += [f"{folder.name}: {what}" for what in differs(folder, whole)]
    state["runs"] += 1
    shutil.rmtree(folder)


def soak(steps: int, seconds: float, place: Path) -> None:
    """Trains with an evaluation and a checkpoint every 50 steps, and measures its process.

    Memory is the resident set, at its largest in each quarter of a part: a part that goes on has a
    new process.
    """
    folder = place / "soak"
    flags = [f"--steps={steps}", "--eval_every=50", "--checkpoint_every=50", "--log_every=50"]
    rows: list[tuple[float, int, int, int]] = []
    began = time.monotonic()
    with subprocess.Popen(
        command(folder, place / "data", *flags), stdout=subprocess.PIPE, text=True
    ) as process:
        watched = psutil.Process(process.pid)
        for line in lines_of(process):
            if not line.startswith("step "):
                continue
            used = sum(f.stat().st_size for f in _files(folder / "checkpoints"))
            rows.append(
                (time.monotonic() - began, watched.memory_info().rss, watched.num_fds(), used)
            )
            if time.monotonic() - began > seconds:
                process.send_signal(signal.SIGTERM)
                break
        process.communicate()
    rows = rows[len(rows) // 5 :]  # after both programs were compiled and run
    quarter = max(len(rows) // 4, 1)
    first, last = rows[:quarter], rows[-quarter:]
    done = log_of(folder)[-1]["step"]
    print(f"soak: step {done} of {steps}, exit code {process.returncode}, {len(rows)} samples")
    for column, name in ((1, "resident bytes"), (2, "descriptors"), (3, "bytes of checkpoints")):
        before, after = (max(row[column] for row in part) for part in (first, last))
        print(f"{name}: {before:,} -> {after:,} ({after / before - 1:+.2%})")


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder, while others come and go."""
    for path, _, names in os.walk(folder):
        yield from (Path(path, name) for name in names if Path(path, name).exists())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=("kills", "signals", "soak"))
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=3600, help="of this part")
    parser.add_argument("--workdir", type=Path, default=Path("runs/failures"))
    asked = parser.parse_args()
    place = asked.workdir.absolute()
    place.mkdir(parents=True, exist_ok=True)
    if asked.kind == "soak":
        soak(asked.steps, asked.seconds, place)
    else:
        repeat(asked.kind, asked.count, asked.seconds, place)


if __name__ == "__main__":
    main()
