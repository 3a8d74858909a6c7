"""Joining: a process becomes one of several, which are compared before anything is done."""

import atexit
import contextlib
import hashlib
import importlib.util
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.table import Table

from research.distributed import group as group_lib
from research.distributed.group import Group
from research.distributed.watch import SILENT, Watch, end_now
from research.errors import UserError
from research.record.progress import console
from research.runtime import machine
from research.training.interrupts import Stopped

ROOT = Path(__file__).resolve().parents[2]
ANYWHERE = ("python", "versions")  # of `runtime.machine`: what must be the same on all machines


class Place(NamedTuple):
    """The place of a process, as --distributed says it; None where the cluster does."""

    address: str | None = None  # HOST:PORT of the first process
    processes: int | None = None
    process: int | None = None


def place_of(said: str) -> Place | None:
    """Reads --distributed; None for "off".

    Raises:
      UserError: where it is none of off, auto and HOST:PORT,N,I.
    """
    if said in ("off", "auto"):
        return Place() if said == "auto" else None
    found = re.fullmatch(r"([^,]+:\d+),(\d+),(\d+)", said)
    if found and int(found[3]) < int(found[2]):
        return Place(found[1], int(found[2]), int(found[3]))
    raise UserError(
        f"--distributed={said}: must be off, auto or HOST:PORT,N,I: where the first of N processes "
        "listens, and which of them this is, from 0 to N - 1."
    )


@contextlib.contextmanager
def joined(said: str, timeout: float, flags: Mapping[str, Any]) -> Iterator[None]:
    """Makes this process one of those that --distributed tells of, for all that is done within.

    Call it before JAX starts its devices. Only the first process prints. A process that is done
    waits for the others; one that fails tells them why, and they end with its exit code.

    Args:
      said: --distributed; with "off" nothing happens.
      timeout: seconds to wait for the others.
      flags: {name: value} that must be the same in all of them.

    Raises:
      UserError: where processes differ, or do not use the devices that they see. Where one does
        not come in time, this process ends with one line and exit code 2.
    """
    place = place_of(said)
    if place is None:
        yield
        return
    group, watch = join(said, place, timeout)
    stopped = None
    try:
        try:
            compare(group, flags)
            yield
        except Stopped as said_so:  # in all processes
            stopped = said_so
        group.exchange("end", "", patient=True)  # `predict` works in the first process alone
    except BaseException as error:
        if of_others(error):
            time.sleep(2 * SILENT)  # `watch` ends this process, and says which one is gone
        code = 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
        code = getattr(error, "exit_code", code)
        watch.tell(group.index, code, str(error) or type(error).__name__)
        atexit.register(end_now, group, code)  # JAX would wait for the others
        raise
    finally:
        watch.end()
    if stopped is not None:
        raise stopped


def of_others(error: BaseException | None) -> bool:
    """Returns whether an error is what the death of another process looks like."""
    while error is not None:
        said = str(error)
        if isinstance(error, jax.errors.JaxRuntimeError) or re.search("Gloo|NCCL", said):
            return "RESOURCE_EXHAUSTED" not in said
        error = error.__cause__ or error.__context__
    return False


def join(said: str, place: Place, timeout: float) -> tuple[Group, Watch]:
    """Joins the other processes; see `joined`."""
    from jax._src import distributed  # JAX has no public name of the client; Orbax does the same

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It listens to SIGTERM alone, and a second one would kill; `Agreement` does what it does.
    jax.config.update("jax_enable_preemption_service", False)
    late = threading.Timer(timeout, _refuse_late, (place, timeout))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            *place, initialization_timeout=int(timeout) + 60, shutdown_timeout_seconds=60
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(_not_joined(said, error)) from error
    finally:
        late.cancel()
    state = distributed.global_state
    group = Group(state.process_id, state.num_processes, state.client)
    group_lib.enter(group)
    watch = Watch(group, str(state.coordinator_address))
    if group.index > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (to the end of the process)
    return group, watch


def _not_joined(said: str, error: Exception) -> str:
    if said == "auto":
        mend = (
            "no cluster says who this process is (Slurm's srun, Open MPI, Cloud TPU and Kubernetes "
            "do); give HOST:PORT,N,I"
        )
    else:
        mend = "give another HOST:PORT"
    return f"--distributed={said}: {mend} ({' '.join(str(error).split())[:200]})."


def _refuse_late(place: Place, timeout: float) -> None:
    """Ends this process, which waits for others; a thread does it, as JAX would abort."""
    group = Group(place.process or 0, place.processes or 1)
    who = "this process" if place.process is None else group.name(place.process)
    if place.process == 0:
        what = f"{who} waits at {place.address}: not all others have come"
    else:
        what = f"{who} has not met the others" + (f" at {place.address}" if place.address else "")
    end_now(group, UserError.exit_code, f"--join_timeout={timeout:g}: {what} in time.")


def compare(group: Group, flags: Mapping[str, Any]) -> None:
    """Compares what all processes run, and on which devices.

    Raises:
      UserError: for the first difference, in all processes alike.
    """
    about = {
        "host": socket.gethostname(),
        "code": code_digest(),
        "machine": {name: machine()[name] for name in ANYWHERE},
        "flags": flags,
        "used": jax.local_device_count(),
        "visible": visible_devices(),
        "kind": jax.local_devices()[0].device_kind,
    }
    all_of_them = [json.loads(x) for x in group.exchange("joining", json.dumps(about))]
    group.hosts.update({index: one["host"] for index, one in enumerate(all_of_them)})
    if said := difference(all_of_them, group.name):
        raise UserError(said)


def difference(processes: Sequence[Mapping[str, Any]], name: Callable[[int], str]) -> str:
    """Returns in one line in what processes differ, or which devices are not used; "" if none."""
    first = processes[0]
    for index, one in enumerate(processes):
        who = f"{name(index)} and {name(0)}"
        for what in ("machine", "flags"):
            if differing := _differing(one[what], first[what]):
                flag = "--" if what == "flags" else ""
                key, a, b = differing
                return f"{who} differ in {flag}{key}: {a}, not {b}; start all of them alike."
        if one["code"] != first["code"]:
            return f"{who} run different code; bring the same files to all machines."
    on_host: dict[str, list[Mapping[str, Any]]] = {}
    for one in processes:
        on_host.setdefault(one["host"], []).append(one)
    for host, here in on_host.items():
        visible, used = max(one["visible"] for one in here), sum(one["used"] for one in here)
        if used < visible:
            return (
                f"{host}: {visible} devices are visible, and {used} are used by {len(here)} "
                "processes; start more processes there, one a device, or hide the others "
                "(CUDA_VISIBLE_DEVICES)."
            )
    return ""


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    for key in sorted(a.keys() | b.keys()):
        one, other = a.get(key), b.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            if found := _differing(one, other):
                return found
        elif one != other:
            return key, one, other
    return None


def code_digest() -> str:
    """Returns the sha256 of all modules of Fovea, wherever they are installed."""
    digest = hashlib.sha256()
    for file in [ROOT / "launch.py", *sorted((ROOT / "research").rglob("*.py"))]:
        digest.update(file.read_bytes() if file.exists() else b"")
    experiments = importlib.util.find_spec("experiments")
    for folder in (experiments.submodule_search_locations or []) if experiments else []:
        for file in sorted(Path(folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def visible_devices() -> int:
    """Returns how many accelerators this process sees; where it cannot be told, what it uses."""
    if jax.default_backend() != "gpu":
        return jax.local_device_count()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return len([one for one in listed.split(",") if one.strip()])
    return len(list(Path("/dev").glob("nvidia[0-9]*"))) or jax.local_device_count()


def show(batch_size: int) -> None:
    """Prints a table of the processes: their machines, devices and rows of each batch."""
    group = group_lib.current()
    if group.count == 1:
        return
    mine = f"{jax.local_device_count()} {jax.local_devices()[0].device_kind}"
    rows = batch_size // group.count
    table = Table("process", "host", "devices", f"rows of each batch of {batch_size}", box=None)
    # One of them may have prepared a data set before.
    for index, devices in enumerate(group.exchange("devices", mine, patient=True)):
        part = f"{index * rows} to {(index + 1) * rows - 1}"
        table.add_row(str(index), group.hosts[index], devices, part)
    console().print(table)
