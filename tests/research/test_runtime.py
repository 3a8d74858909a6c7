"""Memory that a step frees is there for the next, in processes of their own."""

import subprocess
import sys

import pytest

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
