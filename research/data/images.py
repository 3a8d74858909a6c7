"""Image files to arrays: one way of reading for data sets and for a person's own files."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from research.errors import UserError

EXTENSIONS = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
)  # fmt: skip

Image = UInt8[np.ndarray, "height width channel"]

# Damage is reported as our UserError. OpenCV 5 has moved the function.
(cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2).setLogLevel(0)


def read(path: str | Path) -> Image:
    """Reads an image file as 8-bit grey [h, w, 1] or RGB [h, w, 3], turned upright.

    Transparency is laid over white, 16-bit values are scaled down.

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
    # Reading unchanged keeps transparency, but ignores the camera's orientation.
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    if has_alpha(data):
        flags = cv2.IMREAD_UNCHANGED
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
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


def with_channels(
    image: Image, channels: int | None
) -> UInt8[np.ndarray, "height width new_channel"]:
    """The image in grey (1 channel), in RGB (3), or as it is (None)."""
    if channels == 3 and image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    if channels == 1 and image.shape[2] == 3:
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None]
    return image


def has_alpha(data: bytes) -> bool:
    """Whether an encoded PNG or WebP file has transparency."""
    if data.startswith(b"\x89PNG"):
        return data[25:26] in (b"\4", b"\6") or b"tRNS" in data[: data.find(b"IDAT")]
    if data[8:12] == b"WEBP":
        return data[12:16] == b"VP8L" or (data[12:16] == b"VP8X" and bool(data[20] & 16))
    return False


def is_truncated(data: bytes) -> bool:
    """Whether the end marker of a PNG or JPEG file is missing."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data
    if not data.startswith(b"\xff\xd8"):
        return False
    # The marker must follow the picture: thumbnails in the header have their own.
    position = 2
    while data[position : position + 1] == b"\xff" and data[position + 1 : position + 2] != b"\xda":
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return data.find(b"\xff\xd9", position) < 0


def list_images(inputs: Sequence[str | Path]) -> list[Path]:
    """Files as given, folders as the image files below them, sorted.

    Raises:
      UserError: for a path that is not there, and a folder without images.
    """
    files = []
    for path in map(Path, inputs):
        if path.is_dir():
            found = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in EXTENSIONS and not file.name.startswith(".")
            )
            if not found:
                raise UserError(f"{path}: holds no image files ({', '.join(EXTENSIONS)})")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    return files
