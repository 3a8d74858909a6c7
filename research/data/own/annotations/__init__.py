"""A person's own boxes: one file format a module, which all give the same plain arrays."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from research.data.images.objects import Objects
from research.errors import UserError


class Annotated(NamedTuple):
    """An image file and the objects in it.

    Attributes:
      source: where the objects are written, for messages.
      size: height and width as the annotation has them; None where it does not say.
      objects: boxes in pixels; where size is None, in shares of width and height.
    """

    image: Path
    source: str
    size: tuple[int, int] | None
    objects: Objects


class Annotations(NamedTuple):
    """The content of an annotation format's files.

    Attributes:
      splits: train, and validation and test if they are told apart.
      notes: lines for a person, such as how many images have no objects.
      left_out: {reason: number} of image files that are there and not used.
    """

    class_names: tuple[str, ...]
    splits: Mapping[str, list[Annotated]]
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = MappingProxyType({})


def shown(value: Any) -> str:
    """Shortens a value that was read from JSON to its beginning, for messages."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:39] + "…"


def side_of(row: Mapping[str, Any], key: str, where: str) -> int:
    """Reads a side of an image, in pixels; raises UserError, naming `where`, for what is none."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise UserError(f"{where}: its {key} is {shown(value)}, no whole number")
    if not 0 < value < 2**31:
        raise UserError(f"{where}: its {key} is {shown(value)}; it must be above 0, below 2^31")
    return int(value)
