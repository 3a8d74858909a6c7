"""--jobs=N: the processes that train a study's cells, each on a device or cores of its own.

Each is the launcher itself on the same study, and takes the next free cell until none is left
(--share=next). This process watches them, shows how far all are, and passes signals on.
"""

import glob
import importlib.util
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from research.commands.processes import STOPPED, WATCH, end, on_cores
from research.comparison import cells as cells_lib
from research.comparison.cells import Cell, failure_of
from research.comparison.runs import CONFIG, LOG, last_row
from research.errors import UserError
from research.record.progress import console, is_live
from research.training.interrupts import SIGNALS, Interrupts, Stopped

SUPERVISOR = "FOVEA_SUPERVISOR"  # the number of the process whose end is a worker's, too
LOGS = "logs"
PLATFORMS = {"jax_cuda13_plugin": "cuda", "jax_cuda12_plugin": "cuda", "libtpu": "tpu"}
# 0 and 3 say that no cell was left; what a signal ended has saved its cell.
ENDED = (0, 3)
TELL = 30.0  # seconds between lines where there is no terminal


class Place(NamedTuple):
    """The place of a worker: variables of its environment, and its cores (none: any)."""

    environment: dict[str, str]
    cores: frozenset[int] = frozenset()


def places(jobs: int) -> list[Place]:
    """Returns a place for each of `jobs` processes: a device each, or equal shares of the cores.

    Where there are more processes than devices, they share the memory of one. Cores that are left
    over stay idle: another number of them would give other bits.
    """
    platform = os.environ.get("JAX_PLATFORMS", "") or _installed()
    if platform in ("cuda", "gpu") and (found := _visible("CUDA_VISIBLE_DEVICES", "nvidia")):
        each = -(-jobs // len(found))
        shared = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / each:.3f}"} if each > 1 else {}
        return [
            Place({"CUDA_VISIBLE_DEVICES": found[i % len(found)], **shared}) for i in range(jobs)
        ]
    if platform == "tpu" and (found := _visible("TPU_VISIBLE_CHIPS", "accel")):
        if jobs > len(found):
            raise UserError(f"--jobs={jobs}: there are {len(found)} TPU chips, one for a process.")
        alone = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
        return [Place({"TPU_VISIBLE_CHIPS": chip, **alone}) for chip in found[:jobs]]
    if not hasattr(os, "sched_setaffinity"):
        return [Place({})] * jobs
    cores = sorted(os.sched_getaffinity(0))
    each = max(1, len(cores) // jobs)
    return [
        Place({}, frozenset(cores[(i * each + k) % len(cores)] for k in range(each)))
        for i in range(jobs)
    ]


def _installed() -> str:
    """Returns the platform that JAX was installed for, without opening its devices."""
    for package, platform in PLATFORMS.items():
        if importlib.util.find_spec(package) is not None:
            return platform
    return "cpu"


def _visible(variable: str, device: str) -> list[str]:
    """Lists the devices that a process may use, without opening them."""
    if variable in os.environ:
        return [name for name in os.environ[variable].split(",") if name]
    names = (re.fullmatch(rf"/dev/{device}(\d+)", path) for path in glob.glob(f"/dev/{device}*"))
    return sorted((name[1] for name in names if name), key=int)


def end_with_supervisor() -> None:
    """Ends this process, saved, when what started it as a worker is gone, even by kill -9."""
    number = os.environ.pop(SUPERVISOR, "")
    if not number:
        return

    def watch() -> None:
        while os.getppid() == int(number):
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


class Worker(NamedTuple):
    """A process, and the file that holds all that it printed."""

    number: int
    process: subprocess.Popen[bytes]
    log: Path
    place: Place


def start(command: Sequence[str], number: int, place: Place, folder: Path) -> Worker:
    """Starts a worker at its place; it inherits the cores of the thread that starts it."""
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    log = folder / LOGS / f"worker-{number}.txt"
    variables = {**os.environ, **place.environment, SUPERVISOR: str(os.getpid())}
    with log.open("ab") as file, on_cores(place.cores):
        process = subprocess.Popen(
            [*command, "--jobs=1", "--share=next"],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    return Worker(number, process, log, place)


def supervise(command: Sequence[str], folder: Path, cells: Sequence[Cell], jobs: int) -> None:
    """Runs workers, `jobs` at most, until no cell is free.

    A worker that dies leaves its cell as failed, and another takes its place for the cells that
    are left, which is said.

    Args:
      command: the launcher, with the flags of this study and its folder.
      folder: of the study.

    Raises:
      Stopped: after a signal, which was passed on; what was under way is saved.
      UserError: where the workers cannot work; it says why.
    """
    # Of a few cells that are left, each gets what it would among many: the same bits.
    where = places(jobs)[: sum(cell.is_free for cell in cells)]
    for cell in cells:  # what an earlier process left where it died is told from what dies now
        if cell.is_free and cell.folder.exists():
            with cells_lib.claimed(cell):
                pass
    with Overview(cells, len(where)) as overview, Interrupts() as interrupts:
        workers = [start(command, i, place, folder) for i, place in enumerate(where, 1)]
        told = False
        refused = ""
        try:
            while workers:
                time.sleep(WATCH)
                if interrupts.received and not told:
                    told = True
                    overview.say(f"{interrupts.received.name}: waiting until all runs are saved")
                    for worker in workers:
                        worker.process.send_signal(interrupts.received)
                for worker in [w for w in workers if w.process.poll() is not None]:
                    workers.remove(worker)
                    code = worker.process.returncode
                    if code in ENDED or (told and (code in STOPPED or -code in SIGNALS)):
                        continue
                    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                    how += ", as where memory runs out" if -code == signal.SIGKILL else ""
                    reason = f"its process died ({how}); {worker.log} holds what it said"
                    lost = cells_lib.died(cells, worker.process.pid, reason)
                    if lost is None:
                        refused = f"worker {worker.number} stopped ({how}): {_last(worker.log)}"
                        overview.say(refused)
                        continue
                    overview.say(f"{lost.label}: {reason}")
                    if not interrupts.received and any(cell.is_free for cell in cells):
                        overview.say(f"worker {worker.number} starts anew, with the other runs")
                        workers.append(start(command, worker.number, worker.place, folder))
                overview.show()
        finally:
            end([worker.process for worker in workers])
    if interrupts.received:
        raise Stopped(interrupts.received)
    if refused and any(cell.is_free for cell in cells):
        raise UserError(refused)


def _last(log: Path) -> str:
    """Returns the last line that a worker printed."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else f"{log} is empty"


class Overview:
    """The progress of a whole study: runs complete, failed and under way, and the time left."""

    def __init__(self, cells: Sequence[Cell], jobs: int) -> None:
        self._cells, self._jobs = cells, jobs
        self._console = console()
        self._began, self._at_begin = time.monotonic(), self._done()
        self._shown: tuple[int, int] | None = None
        self._told = 0.0
        self._bar: Progress | None = None
        if is_live():
            self._bar = Progress(
                TextColumn("[bold]study"),
                BarColumn(),
                TextColumn("{task.fields[said]}"),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("study", total=len(cells), said="")

    def __enter__(self) -> "Overview":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar:
            self._bar.stop()

    def _done(self) -> float:
        """Returns how many cells' work is done; of one under way, its share of steps."""
        return sum(1.0 if not cell.is_free else share_done(cell.folder) for cell in self._cells)

    def show(self) -> None:
        """Moves the bar; without one, says a line where something changed, and now and then."""
        complete = sum(cell.is_done for cell in self._cells)
        failed = sum(failure_of(cell.folder) is not None for cell in self._cells)
        now = time.monotonic()
        if not self._bar and (complete, failed) == self._shown and now - self._told < TELL:
            return
        done = self._done()
        rate = (done - self._at_begin) / (now - self._began)
        left = f"{(len(self._cells) - done) / rate:.0f} s left" if rate > 0 else ""
        failures = f", {failed} failed" if failed else ""
        said = f"{complete}/{len(self._cells)} runs{failures}  {self._jobs} at a time  {left}"
        self._shown, self._told = (complete, failed), now
        if self._bar:
            self._bar.update(self._task, completed=done, said=said)
        else:
            self.say(said.rstrip())

    def say(self, text: str) -> None:
        """Prints one line of text, above the bar."""
        self._console.print(text, markup=False)


def share_done(folder: Path) -> float:
    """Returns the share of a run's steps that its log knows of, from 0 to 1."""
    try:
        steps = json.loads((folder / CONFIG).read_text())["plan"]["steps"]
        return min(1.0, last_row(folder / LOG).get("step", 0) / steps)
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return 0.0  # nothing was begun yet
