"""The processes of one run, and what they tell each other on the host.

It goes through the key-value store of JAX's coordination service, which needs no device: any
thread may use it, and a program under way on the devices does not wait for it.
"""

import collections
import contextlib
import dataclasses
import signal
import threading
from collections.abc import Mapping
from typing import Any

from research.errors import FailedError, UserError

# Seconds to wait for what another process has to tell. Long: it may draw pictures meanwhile, and
# `watch` notices within less than a minute if it is gone.
PATIENCE = 3600.0


@dataclasses.dataclass
class Group:
    """All processes of a run, as one of them sees them.

    Attributes:
      index, count: this process' number, from 0, and how many there are.
      client: of JAX's coordination service; None where there is one process.
      hosts: {process: the name of its machine}, as far as they have said so.
      agreement: of the step at which all stop; None where there is one process.
      batches: that this process has begun, of training and evaluation; all begin the same.
    """

    index: int = 0
    count: int = 1
    client: Any = None
    hosts: dict[int, str] = dataclasses.field(default_factory=dict)
    agreement: "Agreement | None" = None
    batches: int = 0
    _uses: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def name(self, index: int) -> str:
        """Returns "process 1 of 2 (HOST)"."""
        host = f" ({self.hosts[index]})" if index in self.hosts else ""
        return f"process {index} of {self.count}{host}"

    def exchange(self, name: str, value: str, *, patient: bool = False) -> list[str]:
        """Returns the values of all processes, in order: each waits here for all others.

        Args:
          patient: wait for as long as the others live, where one may have hours of work alone.

        Raises:
          FailedError: where one does not come in an hour.
        """
        if self.count == 1:
            return [value]
        self._uses[name] += 1
        key = f"exchange/{name}/{self._uses[name]}"
        self.client.key_value_set(f"{key}/{self.index}", value)
        every = range(self.count)
        return [self._value_of(index, name, f"{key}/{index}", patient) for index in every]

    def _value_of(self, index: int, name: str, key: str, patient: bool) -> str:
        while True:
            try:
                value: str = self.client.blocking_key_value_get(key, int(1000 * PATIENCE))
            except Exception as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
                if patient:  # `watch` ends this process where the other is gone
                    continue
                raise FailedError(
                    f"{self.name(index)} has not come to {name!r} in {PATIENCE / 60:.0f} minutes."
                ) from error
            return value


class Agreement:
    """The step at which all processes stop, once one was asked to.

    Each says which step it has passed; all stop at the one after the last of these. So nobody waits
    in a collective for one that has stopped, and no step waits for a message.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._passed, self._stop, self._signal = -1, -1, signal.SIGTERM
        self._free = threading.Condition()
        self.voting = False  # no step is passed until all have said where they are
        self.asked: signal.Signals | None = None  # of this process

    def due(self, step: int, received: signal.Signals | None) -> signal.Signals | None:
        """Returns the signal after which all processes stop at this step; None to go on.

        Args:
          step: counted up by one at each call, the same in all processes.
          received: what this process was sent.
        """
        self.asked = received
        with self._free:
            self._free.wait_for(lambda: not self.voting)
            self._passed = step
            return self._signal if 0 <= self._stop <= step else None

    def settle(self, said: Mapping[str, str]) -> None:
        """Asks the others to stop, says where this process is, and reads where they are.

        Args:
          said: what is in the store.
        """
        client = self._group.client
        if self.asked is not None and "watch/stop" not in said:
            with contextlib.suppress(Exception):  # another process may have asked just now
                client.key_value_set("watch/stop", self.asked.name)
        elif "watch/stop" in said and self._stop < 0:
            with self._free:
                if not self.voting:
                    self.voting = True
                    client.key_value_set(f"watch/passed/{self._group.index}", str(self._passed))
                places = [int(v) for k, v in said.items() if k.startswith("watch/passed/")]
                if len(places) == self._group.count:
                    self._signal = signal.Signals[said["watch/stop"]]
                    self._stop, self.voting = max(places) + 1, False
                    self._free.notify_all()


_ALONE = Group()
_joined: list[Group] = []  # the group that this process is in; there is one for as long as it lives


def enter(group: Group) -> None:
    """Makes a group this process' own."""
    _joined.append(group)


def current() -> Group:
    """Returns the group that this process is in: alone, if it has not joined one."""
    return _joined[-1] if _joined else _ALONE


def is_first() -> bool:
    """Returns whether this process is the one that writes the run's folder and speaks."""
    return current().index == 0


def count() -> int:
    """Returns the number of processes."""
    return current().count


def part() -> tuple[int, int]:
    """Returns (i, n): this process reads the i-th of n equal parts of each batch."""
    return current().index, current().count


def exchange(name: str, value: str) -> list[str]:
    """Returns the values of all processes; see `Group.exchange`."""
    return current().exchange(name, value)


def wait(name: str) -> None:
    """Returns when all processes have come here."""
    exchange(name, "")


def of_first(name: str, value: str) -> str:
    """Returns the first process' value, in all of them."""
    return exchange(name, value)[0]


def stop_due(step: int, received: signal.Signals | None) -> signal.Signals | None:
    """Returns the signal after which to stop at this step, in all processes the same, or None.

    Args:
      step: counted up by one at each call.
      received: what this process was sent.
    """
    agreement = current().agreement
    return received if agreement is None else agreement.due(step, received)


def begin_batch() -> None:
    """Counts a batch that this process has begun, for those that wait for it; see `watch`."""
    current().batches += 1


def refuse_different(name: str, values: Mapping[str, str], mend: str) -> None:
    """Raises UserError, in all processes alike, where one has other values than the first.

    Args:
      values: {what it is: value}, the same names in all.
      mend: what to do about it.
    """
    group = current()
    lines = [group.exchange(f"{name}: {what}", value) for what, value in values.items()]
    for what, found in zip(values, lines, strict=True):
        for index, value in enumerate(found):
            if value != found[0]:
                raise UserError(
                    f"{group.name(index)} has another {what} than {group.name(0)} "
                    f"({value[:80]}, not {found[0][:80]}); {mend}."
                )
