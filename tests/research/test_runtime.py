"""Memory that a step frees is there for the next, in processes of their own."""

import os
import subprocess
import sys

import pytest

from research.runtime import git_commit

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
@pytest.mark.parametrize(("asked", "threads"), [("", 1), ("3", 3)])
def test_cores_threads_and_memory_are_those_of_the_process(asked, threads):
    """On one core; XLA's threads are counted where the system lists them."""
    given = {k: v for k, v in os.environ.items() if k not in ("NPROC", "XLA_FLAGS")}
    given |= {"NPROC": asked, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PROCESSORS]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
    cores, said, counted, grown = map(int, done.stdout.split())
    assert (cores, said, counted) == (1, threads, threads)
    assert 290 * 2**20 < grown < 400 * 2**20
