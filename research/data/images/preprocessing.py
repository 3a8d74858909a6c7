"""Preprocessing of images for a network: size, channels, values; saved with its weights."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import cv2
import numpy as np
import PIL.Image
from jaxtyping import UInt8

from research.data.config import Decode, Resize
from research.data.images.reading import WHITE, Reduce, Reduction, read, with_channels
from research.data.sources.examples import Example, read_many
from research.data.sources.splits import Labelled
from research.errors import UserError

Interpolation = Literal["area", "bilinear", "bicubic"]
AnyArray = TypeVar("AnyArray")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The changes of every image, in training as in prediction; saved with each checkpoint.

    Attributes:
      image_size: height and width given to the model, pixels.
      channels: 1 (luminance) or 3 (RGB).
      resize: "pad" shrinks what is larger, never enlarges, and centres the image on black;
        "letterbox" also enlarges; "stretch" changes the aspect ratio; "crop" takes the largest
        centred region of the right aspect ratio, times `crop_share`.
      interpolation: "area" averages the side that shrinks and is bilinear along the one that grows
        (OpenCV, fast); "bilinear" and "bicubic" are Pillow's, smoothed where they shrink, which
        pretrained networks of torchvision and timm expect.
      crop_share: 224/256 is the usual evaluation crop of ImageNet networks: 224 pixels of an image
        whose shorter side was made 256.
      mean, std: of each channel, on the scale 0..255; of the training split only.
      white: the value that becomes 255, of 16-bit images; see `images.read`.
      decode: "reduced" decodes a JPEG at a half, a quarter or an eighth of its size where that is
        still no smaller than what the model gets; "full" decodes all of it.
      whitening: a filter [side, side, channels, channels] on standardised images, row by row; or
        none.
    """

    image_size: tuple[int, int]
    channels: int = 3
    resize: Resize = "pad"
    interpolation: Interpolation = "area"
    crop_share: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    whitening: tuple[float, ...] = ()
    white: int = WHITE
    decode: Decode = "full"

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise UserError(f"images have 1 or 3 channels, not {self.channels}")
        if min(self.image_size) < 1:
            raise UserError(f"image size {self.image_size} is not positive")
        for name, value, kind in (
            ("resize", self.resize, Resize),
            ("interpolation", self.interpolation, Interpolation),
            ("decode", self.decode, Decode),
        ):
            if value not in get_args(kind):
                raise UserError(f"{name} is one of {', '.join(get_args(kind))}; got {value!r}")

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for json.dump; `from_json` reads them."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Preprocessing":
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**plain)

    @property
    def reduce(self) -> Reduce | None:
        """Returns how JPEGs are decoded at a part of their size; None for whole ones."""
        if self.decode == "full":
            return None
        return functools.partial(reduction, preprocessing=self)

    def blank(self, count: int = 1) -> dict[str, np.ndarray]:
        """Returns a batch of black images, for uses where only shapes matter."""
        return {"image": np.zeros((count, *self.image_size, self.channels), np.uint8)}

    def standardise(self, images: AnyArray) -> AnyArray:
        """Converts uint8 images [..., row, column, channel] to the network's float32 inputs.

        They have zero mean and unit variance, unless `normalisation.learn` was asked for something
        else. NumPy or JAX.
        """
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        images = (images.astype(np.float32) - mean) / std  # type: ignore[attr-defined]
        return _filtered(images, self._filter()) if self.whitening else images

    def restore(self, images: AnyArray) -> AnyArray:
        """Inverts `standardise`, for pictures: float32 on the scale 0..255.

        Raises:
          UserError: for whitened images, which have no simple inverse.
        """
        if self.whitening:
            raise UserError(
                "whitened images cannot be turned back into pictures; train with "
                "--input_normalisation=standardised."
            )
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        return images * std + mean  # type: ignore[operator]

    def unnormalised(self) -> "Preprocessing":
        """Returns the same sizes, without the numbers learned from pixel values."""
        return dataclasses.replace(self, mean=(0.0,), std=(1.0,), whitening=())

    def _filter(self) -> np.ndarray:
        side = math.isqrt(len(self.whitening)) // self.channels
        shape = (side, side, self.channels, self.channels)
        return np.array(self.whitening, np.float32).reshape(shape)


def _filtered(images: Any, kernel: np.ndarray) -> Any:
    """Cross-correlates images [..., row, column, channel] with a filter of odd sides."""
    rows, columns = kernel.shape[:2]
    height, width = images.shape[-3:-1]
    reach = [(rows // 2,) * 2, (columns // 2,) * 2, (0, 0)]
    library = images.__array_namespace__()  # numpy or jax.numpy
    padded = library.pad(images, [(0, 0)] * (images.ndim - 3) + reach)
    return sum(
        padded[..., i : i + height, j : j + width, :] @ kernel[i, j]
        for i in range(rows)
        for j in range(columns)
    )


class Placement(NamedTuple):
    """The rectangles of a resize: (top, left, height, width) in whole pixels."""

    cut: tuple[int, int, int, int]  # of the image: the part that is kept
    put: tuple[int, int, int, int]  # of the model's image: the place of that part


def place(height: int, width: int, preprocessing: Preprocessing) -> Placement:
    """Computes how an image of this size gets the model's size; see Preprocessing."""
    rows, columns = preprocessing.image_size
    whole, full = (0, 0, height, width), (0, 0, rows, columns)
    if preprocessing.resize == "stretch":
        return Placement(whole, full)
    if preprocessing.resize == "crop":
        # The largest region of the right aspect ratio; for a square size its side is min(h, w).
        scale = min(height / rows, width / columns) * preprocessing.crop_share
        cut = max(int(scale * rows + 1e-6), 1), max(int(scale * columns + 1e-6), 1)
        return Placement(((height - cut[0] + 1) // 2, (width - cut[1] + 1) // 2, *cut), full)
    scale = min(rows / height, columns / width)
    if preprocessing.resize == "pad":
        scale = min(scale, 1.0)
    put = (
        min(max(round(height * scale), 1), rows),
        min(max(round(width * scale), 1), columns),
    )
    return Placement(whole, ((rows - put[0]) // 2, (columns - put[1]) // 2, *put))


def reduction(height: int, width: int, preprocessing: Preprocessing) -> Reduction:
    """Chooses the smallest size at which an image is no smaller than what the model gets of it.

    An eighth, say, where both sides of what is kept shrink at least eight times. Sides that 8 does
    not divide are rounded so that what is kept, and its place, are as of the whole image.
    """
    cut, put = place(height, width, preprocessing)
    shrinks = max(min(cut[2] / put[2], cut[3] / put[3]), 1)
    part = next(part for part in (8, 4, 2, 1) if part <= shrinks)
    if part == 1:
        return Reduction(1, height, width)

    def away(sides: tuple[int, int]) -> tuple[bool, int]:
        placed = place(*sides, preprocessing)
        moved = sum(abs(part * a - b) for a, b in zip(placed.cut, cut, strict=True))
        return placed.put != put, moved

    heights, widths = ((n // part, -(-n // part)) for n in (height, width))
    return Reduction(part, *min(itertools.product(heights, widths), key=away))


def at_scale(
    height: int, width: int, scale: Sequence[float], preprocessing: Preprocessing
) -> Preprocessing:
    """Returns the preprocessing that resizes an image of this size, uncut, by two factors.

    Args:
      scale: of height and of width.
    """
    rows, columns = (max(round(n * s), 1) for n, s in zip((height, width), scale, strict=True))
    return dataclasses.replace(preprocessing, image_size=(rows, columns), resize="stretch")


def scale_of(sizes: Iterable[tuple[int, int]], preprocessing: Preprocessing) -> list[float]:
    """Returns the factors of height and width for images of these sizes: the median image's."""
    placed = [place(*size, preprocessing) for size in sizes]
    factors = [(put[2] / cut[2], put[3] / cut[3]) for cut, put in placed]
    return [float(x) for x in np.median(factors, axis=0)]


def fit(
    image: UInt8[np.ndarray, "height width channel"], preprocessing: Preprocessing
) -> UInt8[np.ndarray, "new_height new_width new_channel"]:
    """Gives an image the size and number of channels that the model takes; see Preprocessing."""
    if preprocessing.channels == 1:
        image = with_channels(image, 1)
    height, width = image.shape[:2]
    cut, put = place(height, width, preprocessing)
    if preprocessing.interpolation == "area":
        image = _by_opencv(part(image, cut), put[2], put[3])
    elif preprocessing.resize == "crop":
        size, middle = resized_then_cut(height, width, preprocessing)
        image = part(_by_pillow(image, *size, preprocessing.interpolation), middle)
    else:
        image = _by_pillow(image, put[2], put[3], preprocessing.interpolation)
    if put[2:] != preprocessing.image_size:
        canvas = np.zeros((*preprocessing.image_size, image.shape[2]), np.uint8)
        part(canvas, put)[:] = image
        image = canvas
    return np.ascontiguousarray(with_channels(image, preprocessing.channels))


def part(array: np.ndarray, rectangle: tuple[int, int, int, int]) -> np.ndarray:
    """Returns a view of the rectangle (top, left, height, width) of an image or mask."""
    top, left, height, width = rectangle
    return array[top : top + height, left : left + width]


def fit_example(example: Example, preprocessing: Preprocessing) -> Example:
    """Returns the example with its "image" fitted; boxes and masks have functions of their own."""
    return example | {"image": fit(example["image"], preprocessing)}


def resized_then_cut(
    height: int, width: int, preprocessing: Preprocessing
) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """Returns the size to which a Pillow "crop" resizes an image, and the part that it keeps.

    As torchvision and timm do it, to the bit. `place` gives the same part in whole pixels of the
    original image.

    Returns:
      (height, width), and (top, left, height, width) within.
    """
    sides = preprocessing.image_size
    # The side of which more is kept decides; the other follows, rounded down.
    first = 0 if height * sides[1] <= width * sides[0] else 1
    resized = [0, 0]
    resized[first] = round(sides[first] / preprocessing.crop_share)
    resized[1 - first] = int(resized[first] * (height, width)[1 - first] / (height, width)[first])
    top, left = (round((n - side) / 2) for n, side in zip(resized, sides, strict=True))
    return (resized[0], resized[1]), (top, left, *sides)


def _by_opencv(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes by averages along a side that shrinks, bilinearly along one that grows."""
    h, w, channels = image.shape
    least = min(h, height), min(w, width)  # first what shrinks, then what grows
    for (rows, columns), method in (
        (least, cv2.INTER_AREA),
        ((height, width), cv2.INTER_LINEAR),
    ):
        if image.shape[:2] != (rows, columns):
            image = cv2.resize(image, (columns, rows), interpolation=method)
    return image.reshape(height, width, channels)  # a single channel was dropped


def _by_pillow(
    image: np.ndarray, height: int, width: int, interpolation: Interpolation
) -> np.ndarray:
    """Resizes with Pillow, which smooths where the image shrinks."""
    picture = PIL.Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0])
    method = PIL.Image.Resampling[interpolation.upper()]
    return np.asarray(picture.resize((width, height), method)).reshape(height, width, -1)


def read_batch(files: Sequence[str], preprocessing: Preprocessing) -> dict[str, np.ndarray]:
    """Reads a batch of a person's images: "image", and "size", (height, width) as decoded.

    Raises:
      UserError: naming the first file that is no image.
    """
    pictures = [read(file, preprocessing.white, preprocessing.reduce) for file in files]
    return {
        "image": np.stack([fit(picture, preprocessing) for picture in pictures]),
        "size": np.array([picture.shape[:2] for picture in pictures], np.int32),
    }


@dataclasses.dataclass(frozen=True, eq=False)
class Mapped:
    """Examples brought to the fixed size of a preprocessing; images are still uint8.

    Attributes:
      fit: changes all that belongs to the image along with it; a module's function, so that it
        can be sent to worker processes.
    """

    examples: Labelled
    preprocessing: Preprocessing
    fit: Callable[[Example, Preprocessing], Example] = fit_example

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int, /) -> Example:
        return self.fit(self.examples[index], self.preprocessing)

    def __getitems__(self, indices: Sequence[int], /) -> list[Example]:
        examples = read_many(self.examples, indices)
        return [self.fit(example, self.preprocessing) for example in examples]

    @property
    def labels(self) -> np.ndarray:
        return self.examples.labels
