"""Compiles a program for given devices, and says what it takes there."""

import time
from typing import Any, NamedTuple

import jax

from research.hardware.collectives import Exchange, count_collectives
from research.hardware.memory import Memory, memory_of, used_by_refused
from research.hardware.topologies import Topology

# Kernels are tried out on the device, which is not there.
_OPTIONS = {"gpu": {"xla_gpu_autotune_level": 0}}


class Compiled(NamedTuple):
    """The needs of a compiled program on each device.

    Attributes:
      memory: None where the compiler cannot say.
      seconds: to compile it.
      exchanges: by kind of collective.
      open_loops: loops around collectives whose number of turns the data end; counted once.
      refused: whether the compiler found that it does not fit; `memory.peak` alone is then known.
    """

    memory: Memory | None
    seconds: float
    exchanges: dict[str, Exchange]
    open_loops: int
    refused: bool = False

    def fits(self, usable: int | None) -> bool:
        """Returns whether it fits into these bytes; True where nothing is known."""
        if usable is None or self.memory is None:
            return not self.refused
        return not self.refused and self.memory.peak <= usable


def compile_for(topology: Topology, lowered: Any) -> Compiled:
    """Compiles a lowered program for the devices of a topology, which it was lowered for."""
    began = time.perf_counter()
    compiled, memory = compile_or_refuse(lowered, topology)
    seconds = time.perf_counter() - began
    if compiled is None:
        return Compiled(memory, seconds, {}, 0, refused=True)
    return Compiled(memory, seconds, *count_collectives(compiled.as_text()))


def compile_or_refuse(
    lowered: Any, topology: Topology | None = None
) -> tuple[Any | None, Memory | None]:
    """Returns a compiled program, and what it takes of a device; None where that is not known.

    Where the compiler refuses it as too large, the program is None, and `Memory.peak` alone known.

    Args:
      topology: what it was lowered for; None for the devices at hand.
    """
    options = None if topology is None else _OPTIONS.get(topology.chip.kind)
    try:
        compiled = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        used = used_by_refused(error)
        if used is None:
            raise
        return None, Memory(0, 0, used)
    return compiled, memory_of(compiled)


def peak_of(lowered: Any, topology: Topology | None = None) -> int | None:
    """Returns the bytes that a program takes of a device; None where it is refused, or not known.

    Args: those of `compile_or_refuse`.
    """
    compiled, memory = compile_or_refuse(lowered, topology)
    return None if compiled is None or memory is None else memory.peak
