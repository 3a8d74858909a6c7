"""The cost of a run: seconds and examples by activity, memory, processors.

Seconds, examples and memory travel in checkpoints, so that they are of all parts of a run that was
stopped and went on; what was done between the last checkpoint and a kill is in none of them.
"""

import collections
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from research.experiment import PyTree
from research.runtime import peak_memory

# Activities. Other are batch statistics and checkpoints: neither training nor evaluation.
TRAINING, EVALUATION, COMPILATION, OTHER = "training", "evaluation", "compilation", "other"


class Spending:
    """The seconds and examples of a run's activities, over all its parts."""

    def __init__(self) -> None:
        self._seconds = collections.Counter[str]()
        self._examples = collections.Counter[str]()
        self._memory = (0, "process")
        self._parts: list[Mapping[str, Any]] = []
        self._within: list[str] = []
        self._since = time.perf_counter()

    def begin(self, part: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
        """Begins a part of a run, after those that a checkpoint tells of.

        Args:
          part: what is to be known of this part, in plain JSON.
          before: the value of `to_json` in the checkpoint; None for a new run, and for a checkpoint
            of earlier versions, whose parts are then missing.
        """
        if before is not None:
            self._seconds.update(before["seconds"])
            self._examples.update(before["examples"])
            memory, whose = before["memory"]
            self._memory = memory, whose
            self._parts += before["parts"]
        self._parts.append(part)

    def _settle(self) -> None:
        """Adds the seconds since the last change of activity to the innermost one."""
        now = time.perf_counter()
        if self._within:
            name = self._within[-1]
            self._seconds[name] += now - self._since  # type: ignore[assignment]
        self._since = now

    @contextlib.contextmanager
    def on(self, activity: str) -> Iterator[None]:
        """Counts the time within for an activity, and not for the one that it interrupts."""
        self._settle()
        self._within.append(activity)
        try:
            yield
        finally:
            self._settle()
            self._within.pop()

    def count(self, activity: str, examples: int) -> None:
        """Adds examples that an activity has dealt with."""
        self._examples[activity] += examples

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON for a checkpoint."""
        self._settle()
        self._memory = max(self._memory, peak_memory())
        return {
            "seconds": dict(self._seconds),
            "examples": dict(self._examples),
            "memory": list(self._memory),
            "parts": list(self._parts),
        }

    def told(self) -> dict[str, Any]:
        """Returns its part of result.json.

        "peak_memory", bytes, and "peak_memory_of", a "device" or the "process"; "compile_seconds";
        "examples_per_second" of training and of evaluation, without compilation; "parts", each with
        its first step and its processors.
        """
        values = self.to_json()
        seconds, (memory, whose) = values["seconds"], values["memory"]
        rates = {
            name: round(count / seconds[name], 3)
            for name, count in values["examples"].items()
            if seconds.get(name)
        }
        return {
            "peak_memory": memory,
            "peak_memory_of": whose,
            "compile_seconds": round(seconds.get(COMPILATION, 0.0), 3),
            "examples_per_second": rates,
            "parts": values["parts"],
        }


def count_parameters(params: PyTree) -> int:
    """Returns how many numbers there are in the parameters, the frozen ones among them."""
    sizes: Sequence[int] = [leaf.size for leaf in jax.tree.leaves(params)]
    return sum(sizes)
