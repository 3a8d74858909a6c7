"""Leases: one writer of a run in a store, which has no locks.

A lease lasts some minutes and is renewed while its holder works, so that a killed one loses it. Two
that take a free one at the same moment both write it; what both then read names one of them.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from research.errors import FailedError, UserError
from research.remote.store import Store, StoreError

FILE = ".lease.json"
LASTS = 300.0  # seconds; clocks have to agree within much less
RENEWED = 60.0  # seconds between two renewals
SETTLES = 2.0  # seconds until two that write at the same moment read the same


class LeasedError(UserError):
    """A run is being written by another process."""


class LostError(FailedError):
    """A lease ran out, and another process has it now."""


class Lease:
    """The lease of what lies at an address, renewed in the background."""

    def __init__(self, store: Store, token: str) -> None:
        """Names it; `take` takes it.

        Args:
          token: of the holder; who comes again with the same, on the same machine, need not wait.
        """
        self._store, self._token = store, token
        self._until = 0.0
        self._ended = threading.Event()
        self._renewing: threading.Thread | None = None

    def take(self, taking_over: Callable[[], object] = lambda: None) -> str:
        """Takes it, and returns the token of who had it before; "" for nobody.

        Args:
          taking_over: called before the lease names this holder, where the last one was another;
            who is killed in between finds the lease as it was.

        Raises:
          LeasedError: while another holds it.
        """
        found = self._read()
        self._refuse_others(found)
        if found.get("owner") != self._token:
            taking_over()
        self._write(time.time() + LASTS)
        time.sleep(SETTLES)
        self._refuse_others(self._read())
        self._renewing = threading.Thread(target=self._renew_until_ended, daemon=True)
        self._renewing.start()
        return str(found.get("owner", ""))

    def renew(self) -> None:
        """Makes it last from now on. Raises LostError where another has taken it."""
        found = self._read()
        if not self._is_ours(found):
            who = f"{found['by']} has taken it over" if found else "its lease was removed"
            raise LostError(
                f"{self._store.address}: {who}, since the lease was not renewed in time"
            )
        self._write(time.time() + LASTS)

    def hold(self) -> None:
        """Renews it where that is overdue, as in a process that stood still. Raises as `renew`."""
        if time.time() > self._until - LASTS / 2:
            self.renew()

    def stop_renewing(self) -> None:
        """Ends what renews it; it lasts for a while yet."""
        self._ended.set()
        if self._renewing is not None:
            self._renewing.join()

    def give_back(self, keep: bool = True) -> None:
        """Lets others take it at once; it says whose it was, unless nothing is to be kept."""
        if keep:
            self._write(0.0)
        else:
            self._store.remove(FILE)

    def _refuse_others(self, found: dict[str, Any]) -> None:
        if found and not self._is_ours(found) and found["until"] > time.time():
            until = time.strftime("%H:%M:%S UTC", time.gmtime(found["until"]))
            raise LeasedError(
                f"--workdir={self._store.address}: {found['by']} is running in it (its lease "
                f"lasts until {until}, and is renewed while it runs); choose another folder or "
                "wait for it."
            )

    def _is_ours(self, found: dict[str, Any]) -> bool:
        """Returns whether it names this holder on this machine, and not on a copy of its disk."""
        return found.get("owner") == self._token and found["host"] == socket.gethostname()

    def _read(self) -> dict[str, Any]:
        """Returns the lease as it lies there; {} where there is none, or none that can be read."""
        try:
            found = json.loads(self._store.read(FILE) or b"{}")
            return {
                "owner": str(found["owner"]),
                "by": str(found["by"]),
                "host": str(found.get("host", socket.gethostname())),
                "until": float(found["until"]),
            }
        except (ValueError, KeyError, TypeError, OverflowError):
            return {}

    def _write(self, until: float) -> None:
        host = socket.gethostname()
        by = f"process {os.getpid()} on {host}"
        content = {"owner": self._token, "by": by, "host": host, "until": until}
        self._store.write(FILE, json.dumps(content).encode())
        self._until = until

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(RENEWED):
            try:
                self.renew()
            except LostError:
                return  # the next push says so
            except (StoreError, UserError):
                continue
