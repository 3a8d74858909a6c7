"""Backgrounds: crops of photographs that ship inside scikit-image, and plain ones."""

import importlib.util
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from research.data.images import reading as images
from research.errors import UserError

# All CC0 (Creative Commons public domain): the documentation of skimage.data.
PHOTOGRAPHS = ("brick", "grass", "gravel", "coins", "moon", "cell", "chelsea")
_PLAIN = 4  # kinds of plain background for every 7 photographs


class Textures(NamedTuple):
    """Photographs [height, width, 3], each cut in two: its left part, and its right quarter."""

    train: list[np.ndarray]
    test: list[np.ndarray]


def load() -> Textures:
    """Reads the photographs; scikit-image itself is not imported.

    Raises:
      UserError: when scikit-image is not installed.
    """
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise UserError("backgrounds need the package scikit-image: pip install scikit-image")
    folder = Path(package.origin).parent / "data"
    read = (images.read(folder / f"{name}.png") for name in PHOTOGRAPHS)
    photographs = [np.broadcast_to(image, (*image.shape[:2], 3)) for image in read]
    halves = [np.split(image, [3 * image.shape[1] // 4], axis=1) for image in photographs]
    left, right = ([np.ascontiguousarray(half[k]) for half in halves] for k in (0, 1))
    return Textures(train=left, test=right)


def background(
    random: np.random.RandomState, photographs: list[np.ndarray], side: int
) -> UInt8[np.ndarray, "{side} {side} 3"]:
    """Makes a crop of a photograph, one colour, or a gradient; dark, so that colours stand out."""
    kind = random.randint(len(photographs) + _PLAIN)
    if kind < len(photographs):
        photograph = photographs[kind]
        height, width, _ = photograph.shape
        # Whole factors: the mean of the same pixels on every machine.
        crop = side * random.randint(1, min(3, height // side, width // side) + 1)
        top, left = random.randint(height - crop + 1), random.randint(width - crop + 1)
        values = photograph[top : top + crop, left : left + crop]
        values = cv2.resize(values, (side, side), interpolation=cv2.INTER_AREA)
        tint = random.randint(80, 170, 3)
    else:
        ends = random.randint(110, 256, (2, 3))
        if kind % 2:
            ends[1] = ends[0]
        share = np.arange(side)[:, None, None]
        values = (ends[0] * (side - 1 - share) + ends[1] * share) // (side - 1)
        values = np.broadcast_to(values, (side, side, 3))
        values = values.swapaxes(0, 1) if random.randint(2) else values
        tint = random.randint(70, 130, 3)
    return (values.astype(np.int32) * tint // 256).astype(np.uint8)
