"""Counts what devices exchange in a compiled program, in the text of XLA's HLO."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_BITS = re.compile(r"(?:pred|bf|[fsuc])(\d*)")
_SHAPE = re.compile(r"\b((?:pred|bf|[fsuc])\d*[a-z0-9]*)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(
    r"\bbranch_computations=\{([^}]*)\}|\b(?:true|false)_computation=%?([\w.\-]+)"
)
# XLA for TPUs hides a message behind other work: its beginning, middle and end are fusions of one
# chain, each of which shows the message. Channels do not tell: JAX's shard_map gives all the first.
_CHAIN = re.compile(r'\bchain_id="(\w+)"')
_SCATTERED = "all-reduce-scatter"  # a computation of XLA's for TPUs, all-reduce and slice as one
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Exchange(NamedTuple):
    """The collectives of one kind in one run of a program.

    Attributes:
      number: messages; one inside a loop counts as often as the loop turns.
      bytes: of all of them, on each device: of the whole array that is reduced or gathered.
    """

    number: int
    bytes: int


class Instruction(NamedTuple):
    """One line of HLO."""

    name: str
    shape: str
    operation: str
    rest: str  # operands and attributes


def count_collectives(text: str) -> tuple[dict[str, Exchange], int]:
    """Returns what is exchanged by kind, and the loops whose number of turns the data end.

    These count as if they turned once. What XLA fuses with other work counts as its message.

    Args:
      text: of a compiled program (`compiled.as_text()`).
    """
    computations, entry = _parse(text)
    found: dict[str, list[int]] = {}
    open_loops = 0

    def visit(name: str, times: int, chains: set[str]) -> None:
        nonlocal open_loops
        lines = computations.get(name, ())
        for line in lines:
            kind = line.operation.removesuffix("-start")
            if kind in KINDS:
                chain = _CHAIN.search(line.rest)
                if chain is not None and chain[1] in chains:
                    continue
                if chain is not None:
                    chains.add(chain[1])
                if name.startswith(_SCATTERED):
                    kind = "reduce-scatter"
                counted = found.setdefault(kind, [0, 0])
                counted[0] += times
                counted[1] += times * _size(line, kind, lines)
            turns = 1
            if line.operation == "while":
                known = _turns(line, computations)
                open_loops += known is None
                turns = 1 if known is None else known
            if kind not in KINDS:  # the sum of a reduction is no program of its own
                for called in _callees(line):
                    visit(called, times * turns, chains if line.operation == "fusion" else set())

    visit(entry, 1, set())
    return {kind: Exchange(*found[kind]) for kind in KINDS if kind in found}, open_loops


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    computations: dict[str, list[Instruction]] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = head[2]
            computations[current] = []
            entry = current if head[1] else entry
        elif current and (found := _INSTRUCTION.match(line)):
            computations[current].append(Instruction(*found.groups()))
    return computations, entry


def _callees(line: Instruction) -> list[str]:
    if line.operation in ("reduce", "sort", "scatter", "map", "reduce-window"):
        return []  # on one device alone
    called = _CALLED.findall(line.rest)
    for several, one in _BRANCHES.findall(line.rest):
        called += [name.strip().lstrip("%") for name in several.split(",") if name] or [one]
    return called


def _turns(line: Instruction, computations: Mapping[str, Sequence[Instruction]]) -> int | None:
    """Returns how often a loop turns: as XLA says, or as a counter from 0 says; else None."""
    if known := _TURNS.search(line.rest):
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", line.rest)
    if condition is None:
        return None
    lines = computations.get(condition[1], ())
    limits = [int(c.rest.partition(")")[0]) for c in lines if _is_whole(c)]
    compares = [c for c in lines if c.operation == "compare" and "direction=LT" in c.rest]
    return limits[0] if len(limits) == len(compares) == 1 else None


def _is_whole(line: Instruction) -> bool:
    return line.operation == "constant" and line.shape.startswith(("s32[]", "s64[]", "u32[]"))


def _size(line: Instruction, kind: str, lines: Sequence[Instruction]) -> int:
    """Returns the bytes of the whole array: of what comes out, or goes in where it is scattered."""
    if line.operation.endswith("-start") and kind != "all-reduce" and line.shape.startswith("("):
        return max(_bytes(part) for part in _parts(line.shape))  # what goes in, or what comes out
    out = _bytes(line.shape)
    if kind == "reduce-scatter":
        names = re.findall(r"%([\w.\-]+)", line.rest.partition(")")[0])
        shapes = {other.name: other.shape for other in lines}
        return max(out, sum(_bytes(shapes.get(name, "")) for name in names))
    return out


def _parts(shape: str) -> list[str]:
    """Returns the parts of a tuple's shape, which may be tuples themselves."""
    depth, parts = 0, [""]
    for character in shape[1:-1]:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _bytes(shape: str) -> int:
    """Returns the bytes of an array, or of all arrays of a tuple, such as "(f32[2,3]{1,0}, s8[])".

    Types of less than a byte count as one.
    """
    total = 0
    for kind, sides in _SHAPE.findall(shape):
        bits = _BITS.match(kind)
        width = int(bits[1]) if bits and bits[1] else 8
        total += max(width, 8) // 8 * math.prod(int(side) for side in sides.split(",") if side)
    return total
