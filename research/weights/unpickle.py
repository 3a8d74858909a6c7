"""A pickle machine that can build names, numbers and containers, and call nothing of its choosing.

A pickle is a program for a stack machine whose GLOBAL and REDUCE import and call anything. Python's
own `Unpickler` can be told what to import, but still lets a file of a few bytes take all memory or
set attributes of what it was given. This machine has only the instructions that torch's files use;
pickletools describes each.
"""

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

# Instructions that push their argument.
LITERALS = {
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINSTRING",
    "SHORT_BINSTRING",
}
CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY: Mapping[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class RefusedError(Exception):
    """An error about a file that asks for what is no part of a mapping from names to tensors."""


def unpickle(
    file: io.BufferedReader | io.BytesIO,
    known: Mapping[str, Callable[..., Any] | str],
    persistent: Callable[[Any], Any],
) -> Any:
    """Runs the pickle at the file's position and leaves the position after it.

    Args:
      known: all that the pickle may name, as "module name": functions, which it may call with what
        it has built, and strings, which it may not.
      persistent: resolves a persistent id, torch's way of naming a storage.

    Raises:
      RefusedError: another name or instruction.
      Exception: nearly any, where the file is damaged.
    """
    stack: list[Any] = []
    marked: list[list[Any]] = []  # the stacks set aside at each MARK
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        nonlocal stack
        items, stack = stack, marked.pop()
        return items

    def set_items(items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            # A key is hashed, and hashing a tuple of tuples of tuples overruns the C stack.
            if not isinstance(key, (str, int)) or not isinstance(stack[-1], dict):
                raise RefusedError("a mapping by something else than names")
            stack[-1][key] = value

    def find(name: str) -> Any:
        if name not in known:
            raise RefusedError(name.replace(" ", "."))
        return known[name]

    argument: Any
    for instruction, argument, _ in pickletools.genops(file):
        match instruction.name:
            case "PROTO" | "FRAME":
                pass
            case name if name in LITERALS:
                stack.append(argument)
            case name if name in CONSTANTS:
                stack.append(CONSTANTS[name])
            case name if name in EMPTY:
                stack.append(EMPTY[name]())
            case name if name in SHORT_TUPLES:
                count = SHORT_TUPLES[name]
                stack[-count:] = [tuple(stack[-count:])]
            case "MARK":
                marked.append(stack)
                stack = []
            case "TUPLE":
                items = since_mark()
                stack.append(tuple(items))
            case "SETITEM":
                items = [stack.pop(-2), stack.pop()]
                set_items(items)
            case "SETITEMS":
                set_items(since_mark())
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = since_mark()
                stack[-1].extend(items)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(find(argument))
            case "STACK_GLOBAL":
                items = [stack.pop(-2), stack.pop()]
                stack.append(find(f"{items[0]} {items[1]}"))
            case "REDUCE":
                arguments = stack.pop()
                function = stack.pop()
                if not callable(function):
                    raise RefusedError("a call of what is no function")
                stack.append(function(*arguments))
            case "BINPERSID":
                stack.append(persistent(stack.pop()))
            case "BUILD":
                stack.pop()  # attributes of a mapping, such as torch's _metadata: not needed
            case "STOP":
                return stack.pop()
            case name:
                raise RefusedError(f"the instruction {name}")
    raise EOFError("a pickle without an end")
