"""The launcher as a process of its own: on its cores, watched, and ended with what started it."""

import contextlib
import os
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from research.training.interrupts import SIGNALS, Interrupts, Stopped

STOPPED = tuple(128 + number for number in SIGNALS)
WATCH = 0.5  # seconds between looks
GRACE = 60.0  # seconds that a process has to save its work once it was told twice


@contextlib.contextmanager
def on_cores(cores: Collection[int]) -> Iterator[None]:
    """Moves this thread to some cores for a while; a process that it starts inherits them."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run_alone(
    command: Sequence[str],
    environment: Mapping[str, str],
    cores: Collection[int] = (),
    log: Path | None = None,
) -> int:
    """Runs a command to its end, and returns its exit code.

    Args:
      environment: all its variables.
      cores: that it may use; none: as this process.
      log: the file for what it prints; None to print it here.

    Raises:
      Stopped: after a signal, which was passed on.
    """
    with contextlib.ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        file = None if log is None else stack.enter_context(log.open("ab"))
        with on_cores(cores):
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        told = False
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(WATCH)
                if interrupts.received and not told:
                    told = True
                    process.send_signal(interrupts.received)
        finally:
            end([process])
        received = interrupts.received
    if received and (process.returncode in STOPPED or -process.returncode in SIGNALS):
        raise Stopped(received)
    return process.returncode


def end(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Ends processes that are still there, by force where they do not listen."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
