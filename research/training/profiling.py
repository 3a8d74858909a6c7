"""A trace of a few steps of a run: --profile=START,COUNT."""

import re
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from research.errors import UserError
from research.record.progress import console

FOLDER = "profile"


def steps_of(text: str) -> tuple[int, int] | None:
    """Returns START and COUNT of --profile, both at least 1; None where it is empty.

    Raises:
      UserError: for anything else.
    """
    if not text:
        return None
    if not (found := re.fullmatch(r"([1-9]\d*),([1-9]\d*)", text)):
        raise UserError(f"--profile={text}: START,COUNT is needed, such as 20,5; steps begin at 1.")
    return int(found[1]), int(found[2])


class Profile:
    """Writes a trace of the steps START to START + COUNT - 1 into a run's folder, and says how to
    open it. Steps that a run does not reach are not traced.
    """

    def __init__(self, said: str, run: Path) -> None:
        self._steps, self._folder = steps_of(said), run / FOLDER
        self._tracing = False

    def before(self, step: int) -> None:
        """Begins the trace where `step` is the first of it."""
        if self._steps is not None and step == self._steps[0]:
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._tracing = True

    def after(self, step: int, totals: Any) -> None:
        """Ends the trace where `step` is the last of it, once the device is done with it."""
        if self._tracing and self._steps is not None and step == sum(self._steps) - 1:
            jax.block_until_ready(totals)
            self._end()

    def _end(self) -> None:
        jax.profiler.stop_trace()
        self._tracing = False
        console().print(
            f"profile    {self._folder}: `xprof --logdir={self._folder}` shows it (pip install "
            "xprof); ui.perfetto.dev opens its perfetto_trace.json.gz",
            markup=False,
        )

    def __enter__(self) -> "Profile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends a trace that a run's end cuts short."""
        if self._tracing:
            self._end()
