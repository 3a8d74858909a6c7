"""Handlers of SIGTERM, SIGINT and SIGUSR1, which end training cleanly between two steps."""

import math
import signal
import threading
import time
from types import FrameType
from typing import Any

from research.distributed.group import stop_due

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# Terminals and queues send a signal to a whole group of processes, and what started a process may
# pass it on: within these seconds it is the same one, heard twice.
ECHO = 2.0


class Stopped(BaseException):
    """Work was ended by a signal after it was saved; like KeyboardInterrupt, it is no Exception.

    Attributes:
      signal: what ended it.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(self.signal.name)

    @property
    def exit_code(self) -> int:
        """Returns 128 + the signal's number, as shells do: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + self.signal


class Interrupts:
    """A context that keeps the first signal in `received`; one seconds later ends at once.

    Inside another such context it takes over what that one received, and hands its own back.
    """

    received: signal.Signals | None = None

    def __enter__(self) -> "Interrupts":
        self._before: dict[signal.Signals, Any] = {}
        self._since = -math.inf
        self._outer: Interrupts | None = None
        if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._remember)
            outer = getattr(self._before[signal.SIGTERM], "__self__", None)
            if isinstance(outer, Interrupts):
                self._outer = outer
                self.received, self._since = outer.received, outer._since
        return self

    def __exit__(self, *_: Any) -> None:
        if self._outer is not None:
            self._outer.received, self._outer._since = self.received, self._since
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def due(self, step: int) -> signal.Signals | None:
        """Returns the signal after which to stop at this step; several processes agree on both.

        Args:
          step: counted up by one at each call.
        """
        return stop_due(step, self.received)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._since = signal.Signals(number), time.monotonic()
        elif time.monotonic() - self._since > ECHO:
            raise KeyboardInterrupt
