"""Eight fake CPU devices for every test; must run before JAX is used for the first time."""

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
