"""Notices a process that died or stands still, ends this one with its name, and agrees on stops.

Each process writes a beat into the key-value store of JAX's coordination service, and reads those
of the others. JAX's own heartbeats would end the process, too, but abort it without a name. Where
a collective waits for a process that is gone, no exception reaches Python: so the process is ended
from a thread, as a kill would end it, which checkpoints are made for.
"""

import contextlib
import ctypes
import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from research.distributed.group import Agreement, Group

BEAT = 1.0  # seconds between signs of life
SILENT = 30.0  # seconds without one after which a process counts as gone
STILL = 300.0  # seconds in which no process begins a batch, while one is behind the others
PAUSE = 5.0  # a look later than this: it was this process that stood still


class Pulses:
    """The lives of a group's processes, as far as is known: a function of what was heard, and when.

    Times are seconds of one clock.
    """

    def __init__(self, own: int, count: int, now: float) -> None:
        self._own, self._looked, self._answered = own, now, now
        self._beats = dict.fromkeys(range(count), (-1, now))  # {process: (the last beat, when)}
        self._batches = dict.fromkeys(range(count), 0)
        self._moved = now  # when a process last began a batch

    def hear(self, beats: Mapping[int, tuple[int, int]], now: float) -> None:
        """Takes in an answer of the first process' store: {process: (number, batches begun)}."""
        self._answered = now
        for index, (number, batches) in beats.items():
            if number != self._beats[index][0]:
                self._beats[index] = number, now
            if batches != self._batches[index]:
                self._batches[index], self._moved = batches, now

    def verdict(self, now: float) -> tuple[int, str] | None:
        """Returns the process that is gone, and what is the matter with it; None if all live."""
        if (slept := now - self._looked) > PAUSE:  # nobody else's fault
            self._answered += slept
            self._moved += slept
            self._beats = {i: (n, when + slept) for i, (n, when) in self._beats.items()}
        self._looked = now
        silent = f"has given no sign of life for {SILENT:.0f} s"
        if now - self._answered > SILENT:  # it holds what all others say
            return 0, silent
        for index, (_, when) in self._beats.items():
            if index != self._own and self._answered - when > SILENT:
                return index, silent
        behind = min(self._batches, key=self._batches.__getitem__)
        at, others = self._batches[behind], max(self._batches.values())
        if at < others and now - self._moved > STILL:
            return behind, (
                f"lives, but has begun {at} batches where others have begun {others}, and nothing "
                f"has moved for {STILL:.0f} s"
            )
        return None


class Watch:
    """The threads that beat, listen and judge, from joining to the end of the process."""

    def __init__(self, group: Group, address: str) -> None:
        self._group, self._address = group, address
        self._pulses = Pulses(group.index, group.count, time.monotonic())
        self._lock = threading.Lock()
        self._ended = threading.Event()
        group.agreement = self._agreement = Agreement(group)
        for work in (self._beat, self._judge):
            threading.Thread(target=work, name=f"watch{work.__name__}", daemon=True).start()
        self._on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._aborted)
        ctypes.CDLL(None).signal(int(signal.SIGABRT), self._on_abort)

    def end(self) -> None:
        """Ends the threads: the others know that this process is done."""
        self._ended.set()

    def tell(self, index: int, code: int, reason: str) -> None:
        """Tells the others that a process ended, or has to be given up, and with what exit code."""
        with contextlib.suppress(Exception):  # the store may be gone, or hold the very reason
            self._group.client.key_value_set(
                f"watch/left/{index}", json.dumps([code, reason, self._group.index])
            )

    def _pause(self) -> float:
        """Returns the seconds to the next beat: few while others wait for an agreement."""
        return BEAT / 20 if self._agreement.voting else BEAT

    def _beat(self) -> None:
        group, number = self._group, 0
        while not self._ended.wait(self._pause() if number else 0.0):
            number += 1
            try:
                pulse = json.dumps([socket.gethostname(), number, group.batches])
                group.client.key_value_set(f"watch/beat/{group.index}", pulse, True)
                said = dict(group.client.key_value_dir_get("watch/"))
                self._hear(said)
                self._agreement.settle(said)
            except Exception:  # `_judge` counts the seconds without an answer
                continue

    def _hear(self, said: Mapping[str, str]) -> None:
        beats: dict[int, tuple[int, int]] = {}
        for key, value in said.items():
            _, what, *rest = key.split("/")
            if what == "beat":
                host, number, batches = json.loads(value)
                self._group.hosts[int(rest[0])] = host
                beats[int(rest[0])] = number, batches
            elif what == "left":
                code, reason, teller = json.loads(value)
                if teller != self._group.index:
                    self._give_up(int(rest[0]), code, reason)
        with self._lock:
            self._pulses.hear(beats, time.monotonic())

    def _judge(self) -> None:
        while not self._ended.wait(BEAT):
            with self._lock:
                found = self._pulses.verdict(time.monotonic())
            if found is not None:
                index, reason = found
                # A store that stands still would never answer.
                telling = threading.Thread(target=self.tell, args=(index, 1, reason), daemon=True)
                telling.start()
                telling.join(BEAT)
                self._give_up(index, 1, reason)

    def _give_up(self, index: int, code: int, reason: str) -> None:
        """Ends this process because of another."""
        if not self._ended.is_set():
            end_now(self._group, code, f"{self._group.name(index)}: {reason}")

    def _aborted(self, number: int) -> None:
        """Says in one line why JAX aborts: the connection to the first process is lost.

        For any other reason it returns, and the abort takes its course.
        """
        host, _, port = self._address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), BEAT).close()
        except OSError:
            end_now(self._group, 1, f"{self._group.name(0)}: is gone")


_ending = threading.Lock()


def end_now(group: Group, code: int, reason: str = "") -> Any:
    """Ends this process at once, as a collective may hold its main thread for ever.

    Args:
      reason: the line that it says; "" where it has been said.
    """
    _ending.acquire()  # the first thread that comes here says why
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    if reason:
        print(f"error: {' '.join(reason.split())}", file=sys.stderr, flush=True)
    for child in multiprocessing.active_children():
        child.kill()
    if group.index == 0:
        time.sleep(3 * BEAT)  # it holds what the others have yet to read
    os._exit(code)
