"""The memory that a compiled program takes on a device, and what there is of it."""

import os
import re
from typing import Any, NamedTuple

import jax

from research.errors import UserError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
UNITS |= {f"{unit}i": 2 ** (10 * power) for power, unit in enumerate(UNITS) if unit}
_USED = re.compile(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm")  # the compiler of TPUs


class Memory(NamedTuple):
    """The bytes of one device that a program takes while it runs.

    Attributes:
      arguments, outputs: of which outputs may take the place of arguments.
      peak: of these and all that lies between.
    """

    arguments: int
    outputs: int
    peak: int


def memory_of(compiled: Any) -> Memory | None:
    """Returns what a compiled program takes of each device; None where the compiler cannot say."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    arguments, outputs = found.argument_size_in_bytes, found.output_size_in_bytes
    peak = arguments + outputs - found.alias_size_in_bytes + found.temp_size_in_bytes
    return Memory(arguments, outputs, peak)


def used_by_refused(error: Exception) -> int | None:
    """Returns the bytes of a program that the compiler refused as too large; None for others."""
    found = _USED.search(str(error))
    if found is None or "Ran out of memory" not in str(error):
        return None
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2] or " "))


def parse_size(flag: str, text: str) -> int:
    """Returns the bytes of a size such as 80GiB or 16GB.

    Raises:
      UserError: where it is none, with the flag's name.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", text)
    if found is None or not float(found[1]):
        raise UserError(f"--{flag}={text}: a size such as 80GiB or 16GB is needed.")
    return int(float(found[1]) * UNITS[found[2] or ""])


def shown_size(size: int | float) -> str:
    """Writes bytes as "1.4 GiB", "25.3 MiB" or "12 B"."""
    for unit in ("GiB", "MiB", "KiB"):
        if size >= UNITS[unit[:-1]]:
            return f"{size / UNITS[unit[:-1]]:,.1f} {unit}"
    return f"{size:,.0f} B"


def memory_at_hand() -> int | None:
    """Returns the bytes that a program may take of one device of this machine; None if unknown.

    CPU devices share the machine's memory.
    """
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit or device.platform != "cpu":
        return limit
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
    return whole // jax.local_device_count()
