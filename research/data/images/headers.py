"""Facts about encoded images, read from their headers without decoding them."""

import io
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import PIL.Image
import PIL.TiffImagePlugin

PNG = b"\x89PNG"
ORIENTATION = 0x112  # tag of EXIF
# Tags of TIFF.
KIND, BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLES_PER_PIXEL, PLANAR, EXTRA_SAMPLES = (
    254, 258, 262, 277, 284, 338,
)  # fmt: skip
_CMYK = 5
# What Pillow raises of damaged files.
DAMAGE = (
    OSError, ValueError, SyntaxError, EOFError, RuntimeError, OverflowError, KeyError, IndexError,
    TypeError, struct.error,
)  # fmt: skip
_ENDS = {"PNG": b"IEND", "JPEG": b"\xff\xd9", "MPO": b"\xff\xd9"}  # markers at a file's end
_TAIL = 4096  # bytes
_NOT_A_PAGE = 1 | 4  # a smaller version, and a mask, of another page


def unread(data: bytes) -> str:
    """Returns why an intact encoded image cannot be read (its bands or pages); "" if it can."""
    pages = tiff_pages(io.BytesIO(data))
    if pages:
        tags = pages[0]
        bands, photometric = (numbers(tags, tag, 1)[0] for tag in (SAMPLES_PER_PIXEL, PHOTOMETRIC))
        colours = bands - (numbers(tags, EXTRA_SAMPLES, 0)[0] in (1, 2))
        if colours not in (1, 3) and not (colours == 4 and photometric == _CMYK):
            return f"has {bands} bands; grey and RGB are read, with or without transparency"
        count = sum(not numbers(page, KIND, 0)[0] & _NOT_A_PAGE for page in pages)
    elif data.startswith((PNG, b"GIF8")) or data[8:12] == b"WEBP" or data[4:12] == b"ftypavis":
        count = _frames(data)
    else:
        return ""
    if count > 1:
        return f"holds {count} pages or frames; save the one that is meant as a file of its own"
    return ""


def _frames(data: bytes) -> int:
    if data.startswith(PNG) and b"acTL" not in data[: data.find(b"IDAT")]:
        return 1
    try:
        with PIL.Image.open(io.BytesIO(data)) as picture:
            return getattr(picture, "n_frames", 1)
    except (*DAMAGE, PIL.Image.DecompressionBombError):
        return 1  # of damage, decoding says more


def is_wide(file: str | Path) -> bool:
    """Returns whether a file is an image with 16-bit values; False where it cannot be read."""
    try:
        with open(file, "rb") as opened:
            head = opened.read(32)
            if head.startswith(PNG):
                return head[24] == 16
            if head[:2] in (b"P5", b"P6"):
                head += opened.read(1000)  # comments
                lines = b" ".join(line.partition(b"#")[0] for line in head.split(b"\n"))
                return int(lines.split()[3]) > 255
            opened.seek(0)
            pages = tiff_pages(opened, most=1)
            return bool(pages) and max(numbers(pages[0], BITS_PER_SAMPLE, 8)) == 16
    except DAMAGE:
        return False


def orientation(data: bytes) -> int:
    """Returns EXIF's orientation of an encoded PNG or WebP file: 1 to 8, where 1 is upright."""
    if b"eXIf" not in data and b"EXIF" not in data:
        return 1
    try:
        with PIL.Image.open(io.BytesIO(data)) as picture:
            found = picture.getexif().get(ORIENTATION, 1)
    except (*DAMAGE, PIL.Image.DecompressionBombError):
        return 1
    return found if found in range(1, 9) else 1


def has_alpha(data: bytes) -> bool:
    """Returns whether an encoded file has transparency, or may have it."""
    if data.startswith(PNG):
        return data[25:26] in (b"\4", b"\6") or b"tRNS" in data[: data.find(b"IDAT")]
    if data[8:12] == b"WEBP":
        return data[12:16] == b"VP8L" or (
            data[12:16] == b"VP8X" and bool(data[20:21]) and bool(data[20] & 16)
        )
    if data.startswith(b"GIF8"):
        control = data.find(b"\x21\xf9\x04", 0, 4096)  # before the first image
        return control >= 0 and _bit(data, control + 3, 1)
    if data.startswith(b"BM"):  # the mask of alpha, where the header has one
        return int.from_bytes(data[14:18], "little") >= 56 and any(data[66:70])
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return True
    return numbers(tiff_tags(data), EXTRA_SAMPLES, 0)[0] in (1, 2)


def _bit(data: bytes, place: int, bit: int) -> bool:
    return place < len(data) and bool(data[place] & bit)


def numbers(tags: Mapping[int, Any], tag: int, default: int) -> tuple[int, ...]:
    """Returns the numbers of a TIFF's tag; the default if the tag is missing."""
    value = tags.get(tag, default)
    values = value if isinstance(value, tuple) else (value,)
    return values if values and all(isinstance(v, int) for v in values) else (default,)


def tiff_tags(data: bytes) -> dict[int, Any]:
    """Returns the tags of a TIFF's first image; none if the file is not a TIFF."""
    pages = tiff_pages(io.BytesIO(data), most=1)
    return pages[0] if pages else {}


def tiff_pages(file: BinaryIO | io.BytesIO, most: int = 10_000) -> list[dict[int, Any]]:
    """Returns the tags of the first `most` images in a TIFF; none if the file is not a TIFF."""
    head = file.read(16)
    if head[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):  # the last two are BigTIFF
        return []
    pages: list[dict[int, Any]] = []
    try:
        tags = PIL.TiffImagePlugin.ImageFileDirectory_v2(head if b"+" in head[:4] else head[:8])
        seen = set()
        while tags.next and tags.next not in seen and len(pages) < most:
            seen.add(tags.next)
            file.seek(tags.next)
            tags.load(file)
            pages.append({tag: tags[tag] for tag in tags})
    except DAMAGE:
        pass
    return pages


def looks_intact(file: str | Path) -> bool:
    """Returns whether a file begins and ends as intact images do, without decoding it.

    Proves nothing: the middle may be damaged, and what some cameras write after an image hides its
    end.
    """
    try:
        with open(file, "rb") as opened:
            with PIL.Image.open(opened) as picture:
                end = _ENDS.get(picture.format or "", b"")
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(size - _TAIL, 0))
            return end in opened.read()
    except (*DAMAGE, PIL.Image.DecompressionBombError):
        return False


def is_truncated(data: bytes) -> bool:
    """Returns whether the end marker of a PNG or JPEG file is missing."""
    if data.startswith(PNG):
        return b"IEND" not in data
    if not data.startswith(b"\xff\xd8"):
        return False
    # The marker must follow the picture: thumbnails in the header have their own.
    position = 2
    while data[position : position + 1] == b"\xff":
        marker = data[position + 1 : position + 2]
        if marker == b"\xda":
            break
        if marker == b"\xff":  # any number of them may come before a marker
            position += 1
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return data.find(b"\xff\xd9", position) < 0
