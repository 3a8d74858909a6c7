"""Surroundings of a run: memory, the compilation cache, facts about the machine."""

import contextlib
import ctypes
import importlib.metadata
import logging
import os
import platform
import resource
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import jax

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "tensorflow-datasets",
    "fovea",
)


# glibc's malloc.h: parameters of mallopt.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def reuse_memory() -> bool:
    """Lets the C library keep freed memory for the next step; call it before threads start.

    By default glibc gives blocks of more than 32 MB back to the system at once, which clears all
    their pages anew at the next step: 7 % of a ResNet-18's training step on CPU. Afterwards the
    process stays as large as it once was.

    Returns:
      Whether it could be done, which only glibc allows.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # Large blocks, too, come from the heap, which is not trimmed, and which all threads share:
    # a thread's own arena holds 64 MB and sends what is larger to the system.
    wanted = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_ARENA_MAX, 1))
    return all(mallopt(parameter, value) for parameter, value in wanted)


def use_compilation_cache(folder: str) -> None:
    """Keeps compiled programs in `folder`, so that a second launch does not compile them again.

    An unusable folder (read-only home) is no error: programs are then compiled each time.
    """
    if not folder:
        return
    path = Path(folder).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        usable = os.access(path, os.W_OK)
    except OSError:
        usable = False
    if usable:
        jax.config.update("jax_compilation_cache_dir", str(path))
        # A step of a small network compiles in less than the default threshold of a second.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def processors() -> tuple[int, int]:
    """Returns how many cores this process may use, and how many threads XLA computes with on CPU.

    Sums are split over the threads: with another number of them a result may differ in its last
    bits.
    """
    may = getattr(os, "sched_getaffinity", None)  # of Linux
    cores = len(may(0)) if may else os.cpu_count() or 1
    asked = os.environ.get("NPROC", "")  # as XLA asks
    return cores, int(asked) if asked.isdigit() and int(asked) else cores


def peak_memory() -> tuple[int, str]:
    """Returns the most bytes that were in use, and whose: of one "device", or of the "process".

    Of the devices the one that used most; of the process, where devices do not say, the resident
    memory since it started.
    """
    reported = [device.memory_stats() or {} for device in jax.local_devices()]
    used = [found["peak_bytes_in_use"] for found in reported if "peak_bytes_in_use" in found]
    if used:
        return max(used), "device"
    try:  # getrusage would also know of the memory of what started this process
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024, "process"
    except (OSError, IndexError, ValueError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "process"


def git_commit(folder: Path) -> str | None:
    """Returns the commit checked out in `folder`, with "+changes" if files differ from it.

    None if git does not track the folder, such as that of installed packages in a repository.
    """
    try:
        run = lambda *args: subprocess.run(
            ["git", "-C", str(folder), *args], capture_output=True, text=True, timeout=10
        )
        commit = run("rev-parse", "HEAD")
        if commit.returncode or run("ls-files", "--error-unmatch", ".").returncode:
            return None
        changed = run("status", "--porcelain", "--untracked-files=no").stdout.strip()
        return commit.stdout.strip() + ("+changes" if changed else "")
    except (OSError, subprocess.TimeoutExpired):
        return None


def hide_failed_writes() -> None:
    """Hides the messages of Orbax's and TensorStore's threads about writes that failed.

    If a disk is full, each thread reports it with a traceback, after the error was raised here
    once.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    sys.unraisablehook = _show_but_closed_loops


def _show_but_closed_loops(unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def processor() -> str:
    """Returns the processor's name; one of another kind may add up in another order."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# What a program must not use for the same bits each time: operations whose sums are in no order,
# and kernels chosen by a race. OpenXLA's docs/determinism.md; jaxlib 0.10 to 0.12 know both.
DETERMINISTIC = ("--xla_gpu_exclude_nondeterministic_ops=true", "--xla_gpu_autotune_level=0")


def make_deterministic() -> None:
    """Lets GPUs compute the same bits each time; call it before JAX starts its devices.

    Sets nothing where no GPU can be used: an unknown flag would end the process.
    """
    platforms = os.environ.get("JAX_PLATFORMS", "").split(",")
    asked = not any(platforms) or {"cuda", "rocm", "gpu"} & set(platforms)
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    if asked and any(kind in plugin.name for plugin in plugins for kind in ("cuda", "rocm")):
        os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *DETERMINISTIC])


def environment() -> dict[str, Any]:
    """Returns versions, devices and git commit, for config.json and checkpoints."""
    return {
        **machine(),
        "devices": [f"{d.platform}: {d.device_kind}" for d in jax.devices()],
        "processes": jax.process_count(),
    }


def machine() -> dict[str, Any]:
    """Returns what `environment` does but for devices, which are not started."""

    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    cores, threads = processors()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {package: version(package) for package in PACKAGES},
        "cores": cores,
        "threads": threads,
        "processor": processor(),
        "xla_flags": os.environ.get("XLA_FLAGS", "").split(),
        "git_commit": git_commit(Path(__file__).resolve().parent),
    }
