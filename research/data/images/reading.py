"""Image files to arrays: one way of reading for data sets and for a person's own files."""

import dataclasses
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
from jaxtyping import UInt8

from research.data.files import count_line, find, read_bytes
from research.data.images.headers import (
    BITS_PER_SAMPLE,
    DAMAGE,
    JPEG,
    MOST_PIXELS,
    ORIENTATION,
    PLANAR,
    PNG,
    SAMPLES_PER_PIXEL,
    has_alpha,
    is_grey_jpeg,
    is_truncated,
    is_wide,
    numbers,
    orientation,
    stated_size,
    tiff_tags,
    unread,
)
from research.errors import UserError
from research.record.progress import console

EXTENSIONS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".avif", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm",
)  # fmt: skip

Image = UInt8[np.ndarray, "height width channel"]


class Reduction(NamedTuple):
    """The size at which a JPEG is decoded.

    Attributes:
      part: 1, 2, 4 or 8: the whole, a half, a quarter or an eighth.
      height, width: that are kept: each side's part, rounded up or down.
    """

    part: int
    height: int
    width: int


Reduce = Callable[[int, int], Reduction]  # of (height, width), upright; see `preprocessing`
_REDUCED = {
    2: (cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
    4: (cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    8: (cv2.IMREAD_REDUCED_COLOR_8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
}

WHITE = 65535  # of 16 bits

MOST_ENCODED = 2**31  # bytes of an image file: those of MOST_PIXELS in RGB of 16 bits, plain
# `unread` is the judge: microscopes and satellites give more than Pillow takes for an attack.
PIL.Image.MAX_IMAGE_PIXELS = MOST_PIXELS  # errors from twice as many on

# Damage is reported as our UserError. OpenCV 5 has moved the function.
(cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2).setLogLevel(0)


def read(path: str | Path, white: int = WHITE, reduce: Reduce | None = None) -> Image:
    """Reads an image file as 8-bit grey [h, w, 1] or RGB [h, w, 3], turned upright.

    What has transparency becomes RGB over white. Of 16-bit values, `white` becomes 255. A JPEG is
    decoded at the part of its size that `reduce` says, which takes a part of the time: of each
    block of 8 x 8 pixels only the low frequencies are computed. Other files come whole.

    Raises:
      UserError: naming the file, when it cannot be read, is no image, ends early, has other bands
        than grey or RGB, several pages, or 16-bit values beyond `white`.
    """
    return decode_image(read_encoded(path), str(path), white, reduce)


def read_encoded(path: str | Path) -> bytes:
    """Reads an image file as it is, encoded; see `files.read_bytes`."""
    return read_bytes(Path(path), most=MOST_ENCODED)


def decode_image(data: bytes, name: str, white: int = WHITE, reduce: Reduce | None = None) -> Image:
    """Decodes the image in an encoded file; see `read`. `name` is for error messages."""
    image = _pixels(data, name, reduce)
    if image.dtype == np.uint16:
        image = _eight_bits(image, white, name)
    elif image.dtype != np.uint8:
        raise UserError(f"{name}: has {image.dtype} values; save it with 8 or 16 bits a channel")
    if image.ndim == 2:
        return image[:, :, None]
    if image.shape[2] == 4:
        alpha = image[:, :, 3:].astype(np.uint32)
        image = (image[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255
        image = image.astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _eight_bits(image: np.ndarray, white: int, name: str) -> np.ndarray:
    """Converts 16-bit values to 8-bit ones; alpha, a fourth channel, always has all 16."""
    most = image[..., :3].max() if image.ndim == 3 else image.max()
    if most > white:
        raise UserError(
            f"{name}: has values up to {most}, and in images like those that were trained on "
            f"{white} is white; bring it to their bits"
        )
    whites = np.array([white, white, white, WHITE] if image.ndim == 3 else white, np.uint32)
    whites = whites[: image.shape[2]] if image.ndim == 3 else whites
    return ((image.astype(np.uint32) * 255 + whites // 2) // whites).astype(np.uint8)


def white_of(files: Iterable[str | Path]) -> int:
    """Finds the value that is white in the 16-bit images of a set: of 8, 10, 12, 14 or 16 bits.

    Cameras and scanners put 12 bits, and others, into 16. No image of the set has a value above
    it, so that all are made brighter by one factor. Files that cannot be read count for nothing.
    """
    listed = list(map(str, files))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = pool.map(_wide, [listed[i : i + 500] for i in range(0, len(listed), 500)])
        most = max(pool.map(_largest, [file for part in parts for file in part]), default=0)
    bits = next(bits for bits in (8, 10, 12, 14, 16) if most < 2**bits) if most else 16
    if bits < 16:
        console().print(
            f"16-bit images hold {bits} bits: training takes {2**bits - 1} for white", markup=False
        )
    return 2**bits - 1


def read_with(examples: Any, **options: Any) -> Any:
    """Returns the examples, or a choice of them, whose images are read with options of `read`.

    Args:
      options: white, reduce; of a kind of examples that lacks one, images are read as ever.
    """
    if not dataclasses.is_dataclass(examples) or isinstance(examples, type):
        return examples
    fields = {field.name for field in dataclasses.fields(examples)}
    changed = {name: value for name, value in options.items() if name in fields}
    for inner in {"examples", "record"} & fields:  # a choice of some, a prepared set
        changed[inner] = read_with(getattr(examples, inner), **options)
    return dataclasses.replace(examples, **changed) if changed else examples


def _wide(files: list[str]) -> list[str]:
    return [file for file in files if is_wide(file)]


def _largest(file: str) -> int:
    try:
        image = _pixels(read_encoded(file), file)
    except UserError:
        return 0
    colours = image[..., :3] if image.ndim == 3 else image
    return int(colours.max()) if image.dtype == np.uint16 else 0


def _pixels(data: bytes, name: str, reduce: Reduce | None = None) -> np.ndarray:
    """Decodes values as they are stored: grey, or blue, green, red and perhaps alpha; upright."""
    # OpenCV 4 fills in what is missing, and says nothing.
    if is_truncated(data):
        raise UserError(f"{name}: is truncated, the end of the image is missing")
    if reason := unread(data):
        raise UserError(f"{name}: {reason}")
    transparent, image = has_alpha(data), None
    if reduce is not None and data.startswith(JPEG):
        image = _decoded_jpeg(data, reduce)
    elif data and not transparent:  # OpenCV turns what it reads so
        image = _decoded(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    elif data.startswith(PNG) or data[8:12] == b"WEBP":
        image = _decoded(data, cv2.IMREAD_UNCHANGED)
        if image is not None:
            image = turned(_with_holes(image, data), orientation(data))
    elif transparent:
        image = _decoded_by_pillow(data, name)
    if image is None:
        raise UserError(f"{name}: is damaged, or no image")
    return image


def _with_holes(image: np.ndarray, data: bytes) -> np.ndarray:
    """Adds the alpha that a grey PNG's one transparent value gives, which OpenCV passes over."""
    place = data.find(b"tRNS", 0, data.find(b"IDAT"))
    if image.ndim == 3 or place < 0:
        return image
    bits = data[24]
    value = int.from_bytes(data[place + 4 : place + 6], "big")
    value = value * 255 // (2**bits - 1) if bits < 8 else value
    alpha = np.where(image == value, 0, np.iinfo(image.dtype).max).astype(image.dtype)
    return np.stack([image, image, image, alpha], -1)


def _decoded_jpeg(data: bytes, reduce: Reduce) -> np.ndarray | None:
    """Decodes a JPEG at a part of its size, upright; returns None if the file is damaged."""
    lies, height, width = orientation(data), *stated_size(data)
    part, *kept = reduce(*((width, height) if lies >= 5 else (height, width)))
    if part == 1:
        return _decoded(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    flags = _REDUCED[part][is_grey_jpeg(data)]
    image = _decoded(data, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        return None
    rows, columns = reversed(kept) if lies >= 5 else kept
    return turned(image[:rows, :columns], lies)  # what is left out is at the end of the file


def _decoded(data: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # of more than 2**30 pixels
        return None


def _decoded_by_pillow(data: bytes, name: str) -> np.ndarray | None:
    """Decodes 8-bit blue, green, red and alpha, upright; returns None if the file is damaged.

    OpenCV loses the alpha of TIFFs and AVIFs, or multiplies colours by it.

    Raises:
      UserError: a TIFF whose alpha is a plane of its own, or beside 16-bit grey.
    """
    tags = tiff_tags(data)
    samples, bits = numbers(tags, SAMPLES_PER_PIXEL, 1)[0], max(numbers(tags, BITS_PER_SAMPLE, 8))
    if numbers(tags, PLANAR, 1)[0] == 2 or (samples == 2 and bits > 8):
        raise UserError(
            f"{name}: has transparency in a layout that is not read here; save it as PNG"
        )
    try:
        with PIL.Image.open(io.BytesIO(data)) as picture:
            upright = PIL.ImageOps.exif_transpose(picture)
            if upright.mode == "La":  # multiplied by alpha, and so is RGBa
                grey, alpha = np.moveaxis(np.asarray(upright), -1, 0)
                upright = PIL.Image.fromarray(np.stack([grey, grey, grey, alpha], -1), "RGBa")
            return cv2.cvtColor(np.asarray(upright.convert("RGBA")), cv2.COLOR_RGBA2BGRA)
    except PIL.Image.DecompressionBombError as error:
        raise UserError(f"{name}: is too large ({error})") from None
    except DAMAGE:
        return None


def upright_size(picture: PIL.Image.Image) -> tuple[int, int]:
    """Returns the (height, width) that an image opened by Pillow has once it is read here."""
    sides = picture.height, picture.width
    lies = picture.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    return sides[::-1] if lies and picture.format != "TIFF" else sides  # those Pillow has turned


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turns the image upright: EXIF's `orientation` says where its first row and column belong."""
    if orientation >= 5:  # the first row is a side
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def with_channels(
    image: Image, channels: int | None
) -> UInt8[np.ndarray, "height width new_channel"]:
    """Converts the image to grey (1 channel) or RGB (3), or leaves it as it is (None)."""
    if channels == 3 and image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    if channels == 1 and image.shape[2] == 3:
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None]
    return image


def list_images(inputs: Sequence[str | Path]) -> list[Path]:
    """Lists files as given, and the image files below folders in natural order; see `files.find`.

    Raises:
      UserError: for a path that is not there, and a folder without images.
    """
    files: list[Path] = []
    left_out: Counter[str] = Counter()
    for path in map(Path, inputs):
        if path.is_dir():
            found = find(path, EXTENSIONS)
            if not found.files:
                raise UserError(f"{path}: holds no image files ({', '.join(EXTENSIONS)})")
            files += found.files
            left_out.update(found.left_out)
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    if left_out:
        line = count_line(len(files) + left_out.total(), left_out)
        console().print(f"{', '.join(map(str, inputs))}: {line}", markup=False)
    return files
