"""Handlers of SIGTERM and SIGINT, which end training cleanly between two steps."""

import signal
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """A context that keeps the first signal in `received`; a second one ends at once."""

    received: signal.Signals | None = None

    def __enter__(self) -> "Interrupts":
        self._before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
