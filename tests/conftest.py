"""Eight fake CPU devices for every test; must run before JAX is used for the first time.

DEVICE=gpu (or tpu) computes on a real one: for tests of numbers, since those of several devices
want eight.
"""

import gc
import os
import shutil
import tempfile
from importlib.metadata import version

# Compiling takes longer than running what tests run: leave XLA's optimisations out, unless
# OPTIMISED=1 asks for the programs that users run.
QUICK = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
if version("jaxlib").startswith("0.10."):  # halves the time; an unknown option ends the process
    QUICK += [
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
DEVICE = os.environ.get("DEVICE", "cpu")
if DEVICE != "cpu":
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # many workers share it
elif not os.environ.get("OPTIMISED"):
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *QUICK]).strip()

import jax  # noqa: E402
import pictures  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_platforms", DEVICE if DEVICE == "cpu" else f"{DEVICE},cpu")
jax.config.update("jax_num_cpu_devices", 8)

# Tests compile the same small programs again and again; the cache lives as long as the session.
_CACHE = tempfile.mkdtemp(prefix="fovea-tests-")
jax.config.update("jax_compilation_cache_dir", _CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

# Tracing makes many objects that live long; looking for garbage among them takes time.
gc.set_threshold(50_000, 20, 50)


def pytest_collection_modifyitems(items):
    """Puts whole programs before their parts: what is begun last is then short."""
    items.sort(key=lambda item: len(item.path.parts))


def pytest_xdist_auto_num_workers():
    """One process more than there are cores: some always wait for processes that tests start."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="module", autouse=True)
def forget():
    """Forgets compiled programs after each module: they would fill a process's memory (4.7 GB)."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def figures():
    """{file: what it shows} of every figure that is saved while a module's tests run."""
    with pictures.saved() as found:
        yield found


def pytest_unconfigure():
    shutil.rmtree(_CACHE, ignore_errors=True)
