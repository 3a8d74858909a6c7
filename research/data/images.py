"""Image files to arrays: one way of reading for data sets and for a person's own files."""

import io
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.TiffImagePlugin
from jaxtyping import UInt8

from research.data.files import count_line, find
from research.errors import UserError
from research.progress import console

EXTENSIONS = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
)  # fmt: skip

Image = UInt8[np.ndarray, "height width channel"]

# Damage is reported as our UserError. OpenCV 5 has moved the function.
(cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2).setLogLevel(0)


def read(path: str | Path) -> Image:
    """Reads an image file as 8-bit grey [h, w, 1] or RGB [h, w, 3], turned upright.

    What has transparency becomes RGB over white, 16-bit values are scaled down.

    Raises:
      UserError: naming the file, when it cannot be read, is no image, or ends early.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> Image:
    """The image in an encoded file; see `read`. `name` is for error messages."""
    transparent, image = has_alpha(data), None
    if data and not transparent:  # OpenCV turns what it reads so
        image = _decoded(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    elif data.startswith(PNG) or data[8:12] == b"WEBP":
        image = _decoded(data, cv2.IMREAD_UNCHANGED)
        image = image if image is None else turned(image, orientation(data))
    elif transparent:
        image = _decoded_by_pillow(data, name)
    # OpenCV 4 fills in what is missing, and says nothing.
    if is_truncated(data):
        raise UserError(f"{name}: is truncated, the end of the image is missing")
    if image is None:
        raise UserError(f"{name}: is damaged, or no image")
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif image.dtype != np.uint8:
        raise UserError(f"{name}: has {image.dtype} values; save it with 8 or 16 bits a channel")
    if image.ndim == 2:
        return image[:, :, None]
    if image.shape[2] == 4:
        alpha = image[:, :, 3:].astype(np.uint32)
        image = (image[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255
        image = image.astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _decoded(data: bytes, flags: int) -> np.ndarray | None:
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def _decoded_by_pillow(data: bytes, name: str) -> np.ndarray | None:
    """8-bit blue, green, red and alpha, upright; None where the file is damaged.

    OpenCV loses the alpha of TIFFs and AVIFs, or multiplies colours by it.

    Raises:
      UserError: a TIFF whose alpha is a plane of its own, or beside 16-bit grey.
    """
    tags = _tiff_tags(data)
    samples, bits = tags.get(SAMPLES_PER_PIXEL, 1), max(tags.get(BITS_PER_SAMPLE, (8,)))
    if tags.get(PLANAR) == 2 or (samples == 2 and bits > 8):
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
    except (OSError, ValueError, SyntaxError, EOFError):  # what Pillow says of damage
        return None


def orientation(data: bytes) -> int:
    """How EXIF says that an encoded PNG or WebP file is to be turned: 1 to 8, 1 for not at all."""
    if b"eXIf" not in data and b"EXIF" not in data:
        return 1
    try:
        with PIL.Image.open(io.BytesIO(data)) as picture:
            found = picture.getexif().get(ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError):
        return 1
    return found if found in range(1, 9) else 1


def upright_size(picture: PIL.Image.Image) -> tuple[int, int]:
    """(height, width) that an image opened by Pillow has once it is read here."""
    sides = picture.height, picture.width
    lies = picture.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    return sides[::-1] if lies and picture.format != "TIFF" else sides  # those Pillow has turned


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """The image upright: EXIF 2.3 says by `orientation` where its first row and column belong."""
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
    """The image in grey (1 channel), in RGB (3), or as it is (None)."""
    if channels == 3 and image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    if channels == 1 and image.shape[2] == 3:
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None]
    return image


ORIENTATION = 0x112  # tag of EXIF
PNG = b"\x89PNG"
BITS_PER_SAMPLE, SAMPLES_PER_PIXEL, PLANAR, EXTRA_SAMPLES = 258, 277, 284, 338  # tags of TIFF


def has_alpha(data: bytes) -> bool:
    """Whether an encoded file has transparency, or may have it."""
    if data.startswith(PNG):
        return data[25:26] in (b"\4", b"\6") or b"tRNS" in data[: data.find(b"IDAT")]
    if data[8:12] == b"WEBP":
        return data[12:16] == b"VP8L" or (data[12:16] == b"VP8X" and bool(data[20] & 16))
    if data.startswith(b"GIF8"):
        control = data.find(b"\x21\xf9\x04", 0, 4096)  # before the first image
        return control >= 0 and bool(data[control + 3] & 1)
    if data.startswith(b"BM"):  # the mask of alpha, where the header has one
        return int.from_bytes(data[14:18], "little") >= 56 and any(data[66:70])
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return True
    return _tiff_tags(data).get(EXTRA_SAMPLES, (0,))[:1] in ((1,), (2,))


def _tiff_tags(data: bytes) -> dict[int, Any]:
    """The tags of a TIFF's first image; none of what is no TIFF."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return {}
    tags = PIL.TiffImagePlugin.ImageFileDirectory_v2(data[:8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    try:
        tags.load(file)
        return {tag: tags[tag] for tag in tags}
    except (OSError, ValueError, SyntaxError, struct.error, KeyError):
        return {}


def is_truncated(data: bytes) -> bool:
    """Whether the end marker of a PNG or JPEG file is missing."""
    if data.startswith(PNG):
        return b"IEND" not in data
    if not data.startswith(b"\xff\xd8"):
        return False
    # The marker must follow the picture: thumbnails in the header have their own.
    position = 2
    while data[position : position + 1] == b"\xff" and data[position + 1 : position + 2] != b"\xda":
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return data.find(b"\xff\xd9", position) < 0


def list_images(inputs: Sequence[str | Path]) -> list[Path]:
    """Files as given, folders as the image files below them in natural order; see `files.find`.

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
