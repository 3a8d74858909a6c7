"""Live progress of long work: a rich bar on a terminal, plain lines elsewhere."""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def console() -> Console:
    """Returns the console for notices; without colour under NO_COLOR or without a terminal."""
    return Console(highlight=False, soft_wrap=True)


def is_live() -> bool:
    """Returns whether to show a moving bar: on a terminal, unless NO_COLOR is set."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


class TrainingProgress:
    """Step, rate, time left, loss and the last evaluation, while training runs."""

    def __init__(self, total: int, start: int) -> None:
        self.total, self.start, self.began = total, start, time.perf_counter()
        self.console = console()
        self.shown: dict[str, float] = {}
        self.bar: Progress | None = None
        if is_live():
            self.bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} {task.fields[numbers]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self.task = self.bar.add_task("training", total=total, completed=start, numbers="")

    def __enter__(self) -> "TrainingProgress":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar:
            self.bar.stop()

    def advance(self, step: int) -> None:
        """Moves the bar; cheap enough for every step."""
        if self.bar:
            self.bar.update(self.task, completed=step)

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows the newest numbers; a plain line without a bar."""
        self.shown |= metrics
        seconds = max(time.perf_counter() - self.began, 1e-9)
        rate = (step - self.start) / seconds
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in self.shown.items())
        numbers += f"  {rate:.3g} steps/s"
        if self.bar:
            self.bar.update(self.task, completed=step, numbers=numbers)
        else:
            left = (self.total - step) / rate if rate else 0.0
            self.say(f"step {step}/{self.total}  {numbers}  {left:.0f} s left")

    def say(self, text: str) -> None:
        """Prints one line of text, above the bar."""
        self.console.print(text, markup=False)
