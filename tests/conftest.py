"""Eight fake CPU devices for every test; must run before JAX is used for the first time."""

import os
import shutil
import tempfile

# Compiling takes longer than running what tests run: leave XLA's optimisations out.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
).strip()

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

# Tests compile the same small programs again and again; the cache lives as long as the session.
_CACHE = tempfile.mkdtemp(prefix="fovea-tests-")
jax.config.update("jax_compilation_cache_dir", _CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def pytest_unconfigure():
    shutil.rmtree(_CACHE, ignore_errors=True)
