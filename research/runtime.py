"""What surrounds a run: the compilation cache, and what is worth knowing about the machine."""

import importlib.metadata
import os
import platform
import subprocess
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
)


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


def git_commit(folder: Path) -> str | None:
    """The commit checked out in `folder`, "+changes" appended where files differ from it."""
    try:
        run = lambda *args: subprocess.run(
            ["git", "-C", str(folder), *args], capture_output=True, text=True, timeout=10
        )
        commit = run("rev-parse", "HEAD")
        if commit.returncode:
            return None
        changed = run("status", "--porcelain", "--untracked-files=no").stdout.strip()
        return commit.stdout.strip() + ("+changes" if changed else "")
    except (OSError, subprocess.TimeoutExpired):
        return None


def environment() -> dict[str, Any]:
    """Versions, devices and git commit, for config.json and checkpoints."""

    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {package: version(package) for package in PACKAGES},
        "devices": [f"{d.platform}: {d.device_kind}" for d in jax.devices()],
        "processes": jax.process_count(),
        "git_commit": git_commit(Path(__file__).resolve().parent),
    }
