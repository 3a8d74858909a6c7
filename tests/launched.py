"""launch.py as a process of its own, and the flags of a short run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import launch

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": "200"}  # conftest's XLA_FLAGS too


def shell(*flags, cwd, **options):
    """Runs launch.py with one CPU device, as on a laptop."""
    return subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), *map(str, flags)],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def flags(folder, steps=8):
    return [
        "--experiment=classification",
        "--model=convnet",
        "--batch_size=64",
        f"--steps={steps}",
        "--eval_every=4",
        "--log_every=2",
        "--rotation=10",
        f"--data_dir={folder / 'data'}",
        f"--compilation_cache={folder / 'cache'}",
    ]


def read(path):
    return json.loads(Path(path).read_text())


def look(*flags):
    """Runs --experiment=input_optimization in this process; returns the exit code."""
    common = ["--compilation_cache=", "--experiment=input_optimization"]
    return launch.main(["launch.py", *common, *map(str, flags)])
