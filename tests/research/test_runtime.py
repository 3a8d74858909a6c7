"""Memory that a step frees is there for the next, in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from research import runtime
from research.runtime import git_commit

STARTS = """
import subprocess, sys

large = bytearray(b"1" * (1500 * 2**20))
sys.exit(subprocess.run([sys.executable, "-c", sys.argv[1]]).returncode)
"""

PROCESSORS = """
import collections, os, sys

sys.path.insert(0, ".")
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
import jax.numpy as jnp
from research.runtime import peak_memory, processors

(jnp.ones((300, 300)) @ jnp.ones((300, 300))).block_until_ready()
names = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
before = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
bytearray(300 * 2**20)
print(*processors(), sum("Eigen" in name for name in names), peak_memory()[0] - before)
"""

PROGRAM = """
import resource, sys, threading

sys.path.insert(0, ".")
from research.runtime import reuse_memory

if sys.argv[1] == "reuse" and not reuse_memory():
    print("none")
    raise SystemExit


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def steps():
    for _ in range(2):
        before = faults()
        bytearray(100 * 2**20)  # as the buffers of a step: taken, written, and freed
    print(faults() - before)


thread = threading.Thread(target=steps)  # XLA computes in threads of its own
thread.start()
thread.join()
"""


def page_faults(how: str) -> str:
    """Of a second step that uses 100 MiB, as the first did."""
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
    )
    return answer.stdout.strip()


def test_freed_memory_is_used_again():
    found = page_faults("reuse")
    if found == "none":
        pytest.skip("another C library than glibc")
    assert int(found) < 40  # fresh memory takes 25,600 faults, or 50 of huge pages


def test_the_commit_is_that_of_the_code_and_not_of_a_repository_around_it(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *identity, "-C", tmp_path, *arguments], check=True)

    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").touch()
    (tmp_path / ".venv" / "site-packages").mkdir(parents=True)
    (tmp_path / ".venv" / "site-packages" / "a.py").touch()
    git("init", "-q")
    git("add", "code")
    git("commit", "-q", "-m", "Code")
    commit = git_commit(tmp_path / "code")
    assert commit is not None and len(commit) == 40
    (tmp_path / "code" / "a.py").write_text("1")
    assert git_commit(tmp_path / "code") == f"{commit}+changes"
    assert git_commit(tmp_path / ".venv" / "site-packages") is None
    assert git_commit(tmp_path.parent) is None


@pytest.mark.skipif(sys.platform != "linux", reason="threads are listed in /proc")
@pytest.mark.parametrize(
    ("asked", "threads"), [("", 1), pytest.param("3", 3, marks=pytest.mark.families)]
)
def test_cores_threads_and_memory_are_those_of_the_process(asked, threads):
    """On one core; XLA's threads are counted where the system lists them."""
    given = {k: v for k, v in os.environ.items() if k not in ("NPROC", "XLA_FLAGS")}
    given |= {"NPROC": asked, "JAX_PLATFORMS": "cpu"}
    # What starts it has used far more memory, which must not count.
    command = [sys.executable, "-c", STARTS, PROCESSORS]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
    cores, said, counted, grown = map(int, done.stdout.split())
    assert (cores, said, counted) == (1, threads, threads)
    assert 290 * 2**20 < grown < 400 * 2**20


@pytest.mark.parametrize(
    ("platforms", "plugin", "set_"),
    [
        ("", "xla_cuda13", True),
        ("cuda,cpu", "xla_cuda13", True),
        ("cpu", "xla_cuda13", False),  # a GPU that is not used
        ("", "tpu", False),
        ("", "", False),
    ],
)
def test_deterministic_flags_are_set_for_gpus_alone(monkeypatch, tmp_path, platforms, plugin, set_):
    if plugin:
        plugged(tmp_path, plugin)
        monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_max_hlo_modules=1")
    runtime.make_deterministic()
    flags = os.environ["XLA_FLAGS"].split()
    assert flags == ["--xla_dump_max_hlo_modules=1", *(runtime.DETERMINISTIC if set_ else ())]


def plugged(folder, name):
    """A plugin of JAX that notes XLA_FLAGS when JAX starts its devices, and has none."""
    about = folder / "fake_plugin-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-plugin\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[jax_plugins]\n{name} = fake_plugin\n")
    (folder / "fake_plugin.py").write_text(
        "import os, pathlib\n\n\ndef initialize():\n"
        "    flags = os.environ.get('XLA_FLAGS', '')\n"
        "    pathlib.Path(__file__).with_name('seen.txt').write_text(flags)\n"
    )


def test_the_launcher_sets_them_before_the_devices_start(tmp_path):
    plugged(tmp_path, "xla_cuda13")
    root = Path(__file__).resolve().parent.parent.parent
    variables = {**os.environ, "PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "", "XLA_FLAGS": ""}
    command = [sys.executable, root / "launch.py", "--experiment=filtering", "--deterministic"]
    options = ["--steps=1", "--compilation_cache=", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr  # on CPU, where they change nothing
    assert (tmp_path / "seen.txt").read_text().split() == list(runtime.DETERMINISTIC)
    found = json.loads((tmp_path / "run" / "config.json").read_text())
    assert found["environment"]["xla_flags"] == list(runtime.DETERMINISTIC)
    assert "--deterministic=true" in (tmp_path / "run" / "flags.txt").read_text()
