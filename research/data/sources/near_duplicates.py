"""Finds pictures that are nearly the same: saved anew, resized, a little brighter.

Each picture becomes a thumbnail in grey and a perceptual hash of it, the signs of its lowest
frequencies (pHash: Zauner 2010). Hashes that differ in few bits propose pairs, thumbnails that are
alike confirm them. A crop or a mirrored copy counts as another picture.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8, UInt64

from research.data.images.reading import with_channels
from research.data.sources.examples import Examples, read_many

SIDE = 32  # of thumbnails, pixels
MOST_BITS = 6  # of 64 by which hashes of one picture differ
MOST_GREY = 8.0  # of 255 by which thumbnails of one picture differ in the mean
_CHUNK = 16  # pictures, perhaps large ones, that a thread holds at a time


class Hashes(NamedTuple):
    """The values that near duplicates are known by."""

    bits: UInt64[np.ndarray, " n"]
    thumbnails: UInt8[np.ndarray, "n side side"]


def thumbnail(image: UInt8[np.ndarray, "height width channel"]) -> UInt8[np.ndarray, "side side"]:
    """Returns a small grey version of a picture, stretched to a square."""
    return cv2.resize(with_channels(image, 1)[:, :, 0], (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def bits_of(small: UInt8[np.ndarray, "side side"]) -> np.uint64:
    """Returns which of the 8 x 8 lowest frequencies are above their median."""
    lowest = cv2.dct(small.astype(np.float32))[:8, :8].ravel()
    return np.packbits(lowest > np.median(lowest[1:])).view(np.uint64)[0]


def hashes(examples: Examples) -> Hashes:
    """Decodes every example once."""

    def of(start: int) -> list[np.ndarray]:
        block = range(start, min(start + _CHUNK, len(examples)))
        return [thumbnail(example["image"]) for example in read_many(examples, block)]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = pool.map(of, range(0, len(examples), _CHUNK))
        small = np.stack([one for part in parts for one in part])
    return Hashes(np.array([bits_of(one) for one in small]), small)


def pairs(train: Hashes, other: Hashes) -> Iterator[tuple[int, int]]:
    """Yields (position in `other`, position in `train`) of each picture that has a near duplicate.

    Of several, the first.
    """
    for number, (bits, small) in enumerate(zip(*other, strict=True)):
        near = np.flatnonzero(np.bitwise_count(train.bits ^ bits) <= MOST_BITS)
        away = np.abs(train.thumbnails[near].astype(np.int16) - small).mean((1, 2))
        if len(found := near[away <= MOST_GREY]):
            yield number, int(found[0])
