"""The target of the program that is being traced: formulations are chosen by it.

The same function may be traced for the machine at hand and for one that is not there. JAX traces
it anew for each, because the target is part of its cache's key.
"""

import contextlib
from typing import Any, NamedTuple

import jax


class Target(NamedTuple):
    """The devices that a program is compiled for.

    Attributes:
      platform: "cpu", "gpu" or "tpu".
      everywhere, split: the shardings of what all devices have and of rows that they share, where a
        function sees the rows of all; None where it sees one device's rows alone.
      by_device: whether each device normalises its rows by statistics of these alone.
    """

    platform: str
    everywhere: jax.sharding.Sharding | None = None
    split: jax.sharding.Sharding | None = None
    by_device: bool = False

    @property
    def devices(self) -> int:
        """Returns the devices whose rows a function sees."""
        return 1 if self.split is None else len(self.split.device_set)


_target = jax.make_user_context(None)


def compiled_for(target: Target) -> contextlib.AbstractContextManager[None]:
    """Says what is compiled for, while functions are traced within."""
    context: contextlib.AbstractContextManager[None] = _target(target)
    return context


def target() -> Target:
    """Returns what is compiled for; without `compiled_for` it is JAX's default device."""
    if (said := _target.value) is not None:
        found: Target = said
        return found
    config: Any = jax.config
    device = config.jax_default_device or jax.devices()[0]
    return Target(device if isinstance(device, str) else device.platform)


def on_cpu() -> bool:
    """Returns whether the program that is being traced is for a CPU."""
    return target().platform == "cpu"
