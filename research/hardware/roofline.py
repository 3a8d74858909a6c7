"""The fewest seconds that a program can take on some devices, by each of their limits.

Williams, Waterman and Patterson, "Roofline", 2009: no program is faster than its slowest limit, and
a real one is slower than all of them.
"""

from collections.abc import Mapping
from typing import NamedTuple

from research.hardware.collectives import Exchange
from research.hardware.topologies import Topology


class Roofline(NamedTuple):
    """Seconds of one run of a program, by each limit.

    Attributes:
      flops: operations of a device at its peak.
      memory: its arguments and outputs, once through memory. What lies between may stay on the
        chip, so this is a true bound.
      links: what devices exchange, in rings, over all links at once.
    """

    flops: float
    memory: float
    links: float

    @property
    def seconds(self) -> float:
        """Returns the seconds that all limits together allow at best."""
        return max(self)


def roofline(
    topology: Topology,
    flops: float,
    precision: str,
    moved: int,
    exchanges: Mapping[str, Exchange],
) -> Roofline | None:
    """Returns the bounds of a program; None for devices whose peaks are not known.

    Args:
      flops: of all devices together.
      precision: "bfloat16" or "float32".
      moved: bytes of arguments and outputs of one device.
      exchanges: by kind, as `count_collectives` returns them.
    """
    chip, count = topology.chip, len(topology.devices)
    if chip.flops is None or chip.bandwidth is None or chip.links is None:
        return None
    peak = chip.flops[0 if precision == "bfloat16" else 1]
    within = sum(_sent(kind, found.bytes, count) for kind, found in exchanges.items())
    links = within / chip.links
    if topology.hosts > 1 and chip.network is not None:
        # Each device of a host carries an equal share of what the host sends.
        share = topology.hosts / count
        between = sum(_sent(k, share * x.bytes, topology.hosts) for k, x in exchanges.items())
        links = max(links, between / chip.network)
    return Roofline(flops / count / peak, moved / chip.bandwidth, links)


def _sent(kind: str, size: int | float, members: int) -> float:
    """Returns the bytes that each member of a ring sends so that all of an array is exchanged."""
    rounds = 2 if kind == "all-reduce" else 1
    return size if kind.startswith("collective") else rounds * size * (members - 1) / members


def peaks(topology: Topology) -> str:
    """Says in one line what is assumed of a device."""
    chip = topology.chip
    if chip.flops is None or chip.bandwidth is None or chip.links is None:
        return "no peaks are assumed of it, so nothing is said of its speed"
    narrow, wide = (rate / 1e12 for rate in chip.flops)
    said = (
        f"{narrow:,.0f} TFLOP/s in bfloat16 and {wide:,.0f} in float32, "
        f"{chip.bandwidth / 1e9:,.0f} GB/s of memory, {chip.links / 1e9:,.0f} GB/s of links"
    )
    if topology.hosts > 1 and chip.network is not None:
        said += f", {chip.network / 1e9:,.0f} GB/s between hosts"
    return said
