"""Scenes of coloured handwritten digits: picture, boxes and masks, each scene from its own seed.

Every number is an integer and every draw is of `numpy.random.RandomState`, whose stream is frozen
for all versions of NumPy: scenes are the same on every machine.
"""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from research.data.stored.scenes.textures import background

SIDE = 64  # pixels of a scene
SMALLEST, LARGEST = 14, 32  # longer side of a digit's ink, pixels
GAP = 3  # pixels by which the sizes of a scene's digits differ at least
MOST = 6  # digits of a scene
COLOURS = {
    "red": (235, 45, 40),
    "orange": (255, 140, 20),
    "yellow": (255, 232, 60),
    "green": (70, 215, 75),
    "cyan": (80, 225, 235),
    "blue": (75, 115, 255),
    "pink": (255, 120, 205),
    "white": (250, 250, 250),
}
_NAMES = tuple(COLOURS)
_INK = 96  # of 255: the opacity from which a pixel belongs to a digit
_HIDDEN = 10  # one part in ten of a digit's ink may lie under others
_OVERLAP = 4  # boxes share at most a quarter of the smaller
_TRIES = 40


class DigitCutouts(NamedTuple):
    """Handwritten digits, each cut out around its ink.

    Attributes:
      glyphs: uint8 [height, width], ink is bright.
      labels: 0 to 9.
      rows: where each stands in the file it comes from.
    """

    glyphs: list[np.ndarray]
    labels: list[int]
    rows: list[int]


class Thing(NamedTuple):
    """One digit of a scene.

    Attributes:
      row: which handwritten digit it is; see `DigitCutouts`.
      colour: a name of `COLOURS`.
      box: (x0, y0, x1, y1), pixels, tight around its visible ink.
    """

    row: int
    digit: int
    colour: str
    box: tuple[int, int, int, int]

    @property
    def size(self) -> int:
        """Returns the longer side of the box, pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def centre(self) -> tuple[float, float]:
        """Returns (x, y) of the box's centre, pixels."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


class Scene(NamedTuple):
    """A picture and its truth.

    Attributes:
      image: RGB.
      instances: 0 without ink, else the number of the thing on top, from 1.
      things: from the largest to the smallest, which lies on top.
    """

    image: UInt8[np.ndarray, "side side 3"]
    instances: UInt8[np.ndarray, "side side"]
    things: tuple[Thing, ...]

    @property
    def classes(self) -> UInt8[np.ndarray, "side side"]:
        """Returns 0 without ink, else 1 + the digit on top."""
        table = np.array([0, *(1 + thing.digit for thing in self.things)], np.uint8)
        return table[self.instances]


def cut_out(
    images: UInt8[np.ndarray, "n height width"], labels: list[int], rows: list[int]
) -> DigitCutouts:
    """Cuts digits, white on black, out around their ink."""
    glyphs = []
    for image in images:
        ys, xs = np.nonzero(image >= 128)
        glyphs.append(image[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1])
    return DigitCutouts(glyphs, labels, rows)


def draw(
    random: np.random.RandomState,
    digits: DigitCutouts,
    photographs: list[np.ndarray],
    fewest: int = 1,
    most: int = MOST,
) -> Scene:
    """Draws a scene of `fewest` to `most` digits (fewer than chosen if no room is left).

    Sizes differ by `GAP` pixels at least, no two things agree in colour and digit, boxes overlap
    little, and no thing changes another's box.
    """
    image = background(random, photographs, SIDE)
    count = random.randint(fewest, most + 1)
    free = np.sort(random.randint(SMALLEST, LARGEST - GAP * max(count - 1, 0) + 1, count))
    instances = np.zeros((SIDE, SIDE), np.uint8)
    things: list[Thing] = []
    inks: list[int] = []
    for size in (free + GAP * np.arange(count))[::-1].tolist():
        for thing, glyph in _tries(random, digits, size):
            if not all(_apart(thing, other) for other in things):
                continue
            x0, y0, x1, y1 = thing.box
            opacity = _opacity(glyph, x1 - x0, y1 - y0)
            ink = opacity >= _INK
            here = instances[y0:y1, x0:x1]
            under = here.copy()
            here[ink] = len(things) + 1
            if not _spans(ink) or (under.any() and not _seen(instances, things, inks)):
                here[:] = under
                continue
            _paint(image, opacity, thing.box, COLOURS[thing.colour])
            things.append(thing)
            inks.append(int(ink.sum()))
            break
    return Scene(image, instances, tuple(things))


def _tries(
    random: np.random.RandomState, digits: DigitCutouts, size: int
) -> Iterator[tuple[Thing, np.ndarray]]:
    """Yields random digits of a size in random colours at random places, with their glyphs."""
    # All random numbers are drawn at once, even if few are used, which is quicker.
    draws = random.randint(2**31, size=(_TRIES, 4)).tolist()
    for which, colour, across, down in draws:
        which %= len(digits.glyphs)
        width, height = _extent(digits.glyphs[which], size)
        left, top = 1 + across % (SIDE - 1 - width), 1 + down % (SIDE - 1 - height)
        box = (left, top, left + width, top + height)
        name = _NAMES[colour % len(_NAMES)]
        yield Thing(digits.rows[which], digits.labels[which], name, box), digits.glyphs[which]


def _extent(glyph: np.ndarray, size: int) -> tuple[int, int]:
    """Returns (width, height) of a glyph whose longer side becomes `size` pixels."""
    height, width = glyph.shape
    longer = max(height, width)
    return max(size * width // longer, 4), max(size * height // longer, 4)


def _opacity(glyph: np.ndarray, width: int, height: int) -> np.ndarray:
    """Returns the glyph at another size, with slightly bolder strokes."""
    # The exact variant gives the same values on every machine.
    resized = cv2.resize(glyph, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    return cv2.add(resized, resized // 2)  # stops at 255


def _spans(ink: np.ndarray) -> bool:
    """Returns whether there is ink on all four sides."""
    return bool(ink[0].any() and ink[-1].any() and ink[:, 0].any() and ink[:, -1].any())


def _apart(a: Thing, b: Thing) -> bool:
    """Returns whether two things differ in colour or digit, and overlap by a quarter at most."""
    if (a.digit, a.colour) == (b.digit, b.colour):
        return False
    width = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    height = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    if width <= 0 or height <= 0:
        return True
    areas = ((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a.box, b.box))
    return width * height * _OVERLAP <= min(areas)


def _seen(instances: np.ndarray, things: list[Thing], inks: list[int]) -> bool:
    """Returns whether enough of each thing is visible, and its box is unchanged."""
    for number, (thing, ink) in enumerate(zip(things, inks, strict=True), 1):
        x0, y0, x1, y1 = thing.box
        part = instances[y0:y1, x0:x1] == number
        if int(part.sum()) * _HIDDEN < ink * (_HIDDEN - 1) or not _spans(part):
            return False
    return True


def _paint(
    image: np.ndarray,
    opacity: UInt8[np.ndarray, "height width"],
    box: tuple[int, int, int, int],
    colour: tuple[int, int, int],
) -> None:
    """Lays a digit and a thin dark rim over the image, in place."""
    x0, y0, x1, y1 = box
    # The rim is one pixel wide; placing leaves a pixel at the image's border.
    around = cv2.copyMakeBorder(opacity, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    rim = cv2.dilate(around, np.ones((3, 3), np.uint8))
    part = image[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1]
    over = around.astype(np.int32)[:, :, None]
    dark = part * (510 - rim.astype(np.int32)[:, :, None]) // 510
    part[...] = (dark * (255 - over) + np.array(colour, np.int32) * over + 127) // 255
