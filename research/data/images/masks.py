"""Reads masks as class numbers, resizes them to the model's size and back, and saves them."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import PIL.Image
from jaxtyping import Int, Integer, UInt8

from research.data.files import read_text
from research.data.images.headers import DAMAGE, is_truncated, orientation, unread
from research.data.images.preprocessing import Preprocessing, at_scale, fit, part, place
from research.data.images.reading import turned
from research.data.sources.examples import Arrays, Example, Examples, read_many
from research.data.sources.splits import spaced
from research.errors import UserError

IGNORE = 255  # in "segmentation": pixels of no class, which count for nothing
MOST_CLASSES = 255

Mask = UInt8[np.ndarray, "height width"]


class Classes(NamedTuple):
    """The meaning of the values in mask files.

    Attributes:
      names: of classes 0, 1, ...
      keys: value -> class, or IGNORE; a colour's value is 65536 red + 256 green + blue.
      colours: whether masks are read as colours.
    """

    names: tuple[str, ...]
    keys: dict[int, int]
    colours: bool = False


def plain_classes(names: Sequence[str]) -> Classes:
    """Returns classes whose values in masks are the class numbers themselves."""
    return Classes(tuple(names), {k: k for k in range(len(names))})


def ignoring(classes: Classes, value: int) -> Classes:
    """Returns classes with one more value that is ignored; -1 for 255, unless that is a class."""
    if value < 0:
        return classes._replace(keys={IGNORE: IGNORE} | classes.keys)
    return classes._replace(keys=classes.keys | {value: IGNORE})


def nameless(classes: Classes, path: Path) -> list[str]:
    """Returns a warning for each class with a name such as "void", and how to ignore it."""
    lines = []
    for key, number in classes.keys.items():
        name = "" if number == IGNORE else classes.names[number]
        if re.search(
            r"\b(void|ignored?|unlabell?ed|unclassified|no.?data|don.?t.?care)\b", name, re.I
        ):
            how = 'call it "void" in the table' if classes.colours else f"--ignore_label={key}"
            lines.append(
                f"{path}: {name!r} is trained as a class; {how} makes it count for nothing"
            )
    return lines


def read_classes(path: Path) -> Classes:
    """Reads a class table: a line "VALUE NAME" or "RED GREEN BLUE NAME" for each class.

    Classes are numbered as the lines come. Commas count as spaces, lines that begin with # do not
    count, and a name "ignore" or "void" makes no class.

    Raises:
      UserError: naming the file and line that are no such table.
    """
    lines = read_text(path).splitlines()
    names: list[str] = []
    keys: dict[int, int] = {}
    forms = set()
    for number, line in enumerate(lines, 1):
        words = line.replace(",", " ").split()
        if not words or line.lstrip().startswith("#"):
            continue
        digits = 0
        while digits < len(words) and digits < 3 and _is_number(words[digits]):
            digits += 1
        digits = 3 if digits == 3 else min(digits, 1)
        name, values = " ".join(words[digits:]), [int(word) for word in words[:digits]]
        if not digits or not name or (digits == 3 and max(values) > 255):
            raise UserError(f'{path}, line {number}: is neither "VALUE NAME" nor "R G B NAME"')
        key = values[0] if digits == 1 else (values[0] << 16) + (values[1] << 8) + values[2]
        forms.add(digits)
        if key in keys or name in names:
            raise UserError(f"{path}, line {number}: {line.strip()!r} is there twice")
        ignored = name.lower() in ("ignore", "void")
        keys[key] = IGNORE if ignored else len(names)
        if not ignored:
            names.append(name)
    if len(forms) != 1:
        raise UserError(f"{path}: needs either values or colours, for every class alike")
    if not 2 <= len(names) <= MOST_CLASSES:
        raise UserError(f"{path}: names {len(names)} classes; it takes 2 to {MOST_CLASSES}")
    return Classes(tuple(names), keys, forms == {3})


def _is_number(word: str) -> bool:
    return word.isdecimal() and len(word) < 10


def decode_mask(
    data: bytes, name: str, colours: bool = False
) -> Integer[np.ndarray, "height width"]:
    """Returns an encoded mask's values: palette indices, grey values (8 or 16 bits), or colours.

    The mask is turned as its EXIF data say.

    Args:
      name: for error messages.
      colours: read colours, of palette images too; see `Classes.keys`.

    Raises:
      UserError: for a damaged file, a file that is no image, a JPEG, a file of several pages, and
        colours where numbers are expected.
    """
    # Pillow says nothing of it once tensorflow_datasets has told it not to.
    if is_truncated(data):
        raise UserError(f"{name}: is truncated, the end of the image is missing")
    if reason := unread(data):
        raise UserError(f"{name}: {reason}")
    try:
        picture = PIL.Image.open(io.BytesIO(data))
        if picture.format == "JPEG":
            raise UserError(f"{name}: is a JPEG, whose values are not exact; save masks as PNG")
        if colours:
            pixels = turned(np.asarray(picture.convert("RGB")), orientation(data)).astype(np.int32)
            return (pixels[..., 0] << 16) + (pixels[..., 1] << 8) + pixels[..., 2]
        pixels = turned(np.asarray(picture), orientation(data))
    except PIL.Image.DecompressionBombError as error:
        raise UserError(f"{name}: is too large ({error})") from None
    except DAMAGE as error:
        raise UserError(f"{name}: is damaged, or no image ({error})") from None
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if pixels.ndim == 3:
        values = pixels[..., : 1 if pixels.shape[2] == 2 else 3]  # without transparency
        if (values != values[..., :1]).any():
            raise UserError(
                f'{name}: is in colour; name the colours in a class table, lines "R G B NAME"'
            )
        pixels = values[..., 0]
    if not np.issubdtype(pixels.dtype, np.integer):
        raise UserError(f"{name}: has {pixels.dtype} values; save it with whole numbers")
    return pixels


def to_classes(values: Integer[np.ndarray, "height width"], classes: Classes, name: str) -> Mask:
    """Returns class numbers, or IGNORE. Raises UserError with the file and an unknown value."""
    if values.dtype in (np.uint8, np.uint16):  # a table takes a tenth of the memory of a search
        table = np.full(np.iinfo(values.dtype).max + 1, -1, np.int16)
        for key, number in classes.keys.items():
            if key < len(table):
                table[key] = number
        numbers = table[values]
        strange = values[numbers < 0]
    else:
        keys = np.array(sorted(classes.keys))
        place = np.minimum(np.searchsorted(keys, values), len(keys) - 1)
        numbers = np.array([classes.keys[key] for key in keys.tolist()])[place]
        strange = values[keys[place] != values]
    if len(strange):
        value = int(strange[0])
        shown = f"colour {value >> 16} {value >> 8 & 255} {value & 255}" if classes.colours else ""
        raise UserError(
            f"{name}: {shown or f'value {value}'} ({np.sum(strange == value)} pixels) is none of "
            f"the {len(classes.names)} classes ({_listed(classes)})"
        )
    return numbers.astype(np.uint8)


def _listed(classes: Classes) -> str:
    if classes.colours:
        return ", ".join(classes.names[:5]) + (", ..." if len(classes.names) > 5 else "")
    known = [key for key, number in classes.keys.items() if number != IGNORE]
    ignored = [key for key, number in classes.keys.items() if number == IGNORE]
    text = (
        f"{known[0]} to {known[-1]}"
        if known == list(range(known[0], known[-1] + 1))
        else ", ".join(map(str, known[:10]))
    )
    return text + (f"; {', '.join(map(str, ignored[:5]))} ignored" if ignored else "")


def fit_pair(example: Example, preprocessing: Preprocessing) -> Example:
    """Returns the example with image and mask at the model's size; the mask's padding is IGNORE.

    A mask takes the nearest pixel's class.
    """
    mask = example["segmentation"]
    cut, put = place(mask.shape[0], mask.shape[1], preprocessing)
    canvas = np.full(preprocessing.image_size, IGNORE, np.uint8)
    part(canvas, put)[:] = _nearest(part(mask, cut), put[2], put[3])
    return {**example, "image": fit(example["image"], preprocessing), "segmentation": canvas}


def fit_pair_at_scale(
    example: Example, preprocessing: Preprocessing, *, scale: Sequence[float]
) -> Example:
    """Returns the example uncut, its image and mask resized by the factors of height and width."""
    height, width = example["segmentation"].shape
    return fit_pair(example, at_scale(height, width, scale, preprocessing))


class OwnSize:
    """The masks of a split at their images' original sizes; the only field is "segmentation".

    Each is read once and then held as a PNG, of which one of 500 x 500 pixels takes a few kB.
    """

    def __init__(self, examples: Examples) -> None:
        self._examples = examples
        self._held: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int, /) -> Example:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int], /) -> list[Example]:
        new = [index for index in dict.fromkeys(indices) if index not in self._held]
        for index, example in zip(new, read_many(self._examples, new), strict=True):
            self._held[index] = cv2.imencode(".png", example["segmentation"])[1]
        masks: list[Any] = [
            cv2.imdecode(self._held[index], cv2.IMREAD_GRAYSCALE) for index in indices
        ]
        return [{"segmentation": mask} for mask in masks]


def sizes_of(examples: Examples, most: int = 200) -> list[tuple[int, int]]:
    """Returns height and width of all masks, or of `most` evenly spaced ones."""
    chosen = spaced(len(examples), most).tolist()
    shapes = (x["segmentation"].shape for x in read_many(examples, chosen))
    return [(height, width) for height, width in shapes]


def restore(
    labels: Mask, height: int, width: int, preprocessing: Preprocessing
) -> UInt8[np.ndarray, "{height} {width}"]:
    """Resizes a mask of the model's size to its image's size; IGNORE where that was cut off."""
    cut, put = place(height, width, preprocessing)
    canvas = np.full((height, width), IGNORE, np.uint8)
    part(canvas, cut)[:] = _nearest(part(labels, put), cut[2], cut[3])
    return canvas


def _nearest(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    if mask.shape == (height, width):
        return mask
    method = cv2.INTER_NEAREST_EXACT  # takes pixels at their centres; INTER_NEAREST does not
    return cv2.resize(np.ascontiguousarray(mask), (width, height), interpolation=method)


def palette(count: int = 256) -> UInt8[np.ndarray, "{count} 3"]:
    """Returns a colour for each class number, as Pascal VOC's development kit does; 0 is black."""
    numbers = np.arange(count)
    colours = np.zeros((count, 3), np.uint8)
    for bit in range(8):  # the lowest three bits give the highest bit of red, green and blue, ...
        for channel in range(3):
            colours[:, channel] |= ((numbers >> (3 * bit + channel) & 1) << (7 - bit)).astype("u1")
    return colours


def save_mask(path: Path, labels: Mask, colours: UInt8[np.ndarray, "n 3"] | None = None) -> None:
    """Writes class numbers as a palette PNG: numbers for programs, colours for people."""
    picture = PIL.Image.fromarray(np.ascontiguousarray(labels))
    picture.putpalette((palette() if colours is None else colours).astype(np.uint8).tobytes())
    picture.save(path, format="PNG")


def count_classes(mask: UInt8[np.ndarray, "*shape"], classes: int) -> Int[np.ndarray, "{classes}"]:
    """Counts the pixels of each class; ignored ones are left out."""
    return np.bincount(mask.ravel(), minlength=256)[:classes]


def count_split(examples: Examples, classes: int) -> Int[np.ndarray, "{classes}"]:
    """Counts the pixels of each class in all examples; reads each once if it is not in memory."""
    if isinstance(examples, Arrays):
        return count_classes(examples.fields["segmentation"], classes)
    total = np.zeros(classes, np.int64)
    for start in range(0, len(examples), 256):
        for example in read_many(examples, range(start, min(start + 256, len(examples)))):
            total += count_classes(example["segmentation"], classes)
    return total
