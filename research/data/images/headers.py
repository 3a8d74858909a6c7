"""Facts about encoded images, read from their headers without decoding them."""

import io
import os
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import PIL.Image
import PIL.TiffImagePlugin

PNG = b"\x89PNG"
JPEG = b"\xff\xd8"
ORIENTATION = 0x112  # tag of EXIF
# Tags of TIFF.
KIND, BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLES_PER_PIXEL, PLANAR, EXTRA_SAMPLES = (
    254, 258, 262, 277, 284, 338,
)  # fmt: skip
_WIDTH, _HEIGHT = 256, 257
_CMYK = 5
MOST_PIXELS = 2**28  # of an image that is decoded: 0.8 GB in RGB
_FEW = 2**24  # pixels, which any file may have
_DENSEST = 100_000  # pixels a byte; a blank page of one bit, as fax machines send it, has 80,000
# What Pillow raises of damaged files.
DAMAGE = (
    OSError, ValueError, SyntaxError, EOFError, RuntimeError, OverflowError, KeyError, IndexError,
    TypeError, struct.error,
)  # fmt: skip
_ENDS = {"PNG": b"IEND", "JPEG": b"\xff\xd9", "MPO": b"\xff\xd9"}  # markers at a file's end
# A JPEG's markers: any number of \xff come before one; those alone have no length after them.
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_SCAN, _END, _ALONE = 0xDA, 0xD9, (0x01, *range(0xD0, 0xD9))
_TAIL = 4096  # bytes
_NOT_A_PAGE = 1 | 4  # a smaller version, and a mask, of another page


def unread(data: bytes) -> str:
    """Returns why an intact encoded image cannot be read (size, bands, pages); "" if it can."""
    height, width = stated_size(data)
    if not height * width:
        return "is damaged, or no image"
    if height * width > MOST_PIXELS:
        return f"has {width:,} x {height:,} pixels, more than {MOST_PIXELS:,}; cut it into tiles"
    if height * width > max(_FEW, _DENSEST * len(data)):
        return f"says it has {width:,} x {height:,} pixels, more than {len(data):,} bytes can hold"
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


def stated_size(data: bytes) -> tuple[int, int]:
    """Returns the (height, width) that an encoded image says it has; (0, 0) if it says nothing.

    A file of a few bytes may say anything, and decoders take the memory first.
    """
    if data.startswith(PNG):
        width, height = _numbers(">II", data, 16)
    elif data.startswith(JPEG):
        height, width = _numbers(">HH", data, _frame_sides(data))
    elif data.startswith(b"GIF8"):
        width, height = _numbers("<HH", data, 6)
    elif data.startswith(b"BM"):
        old = data[14:18] == b"\x0c\0\0\0"
        width, height = map(abs, _numbers("<HH" if old else "<ii", data, 18))
    elif data[8:16] == b"WEBPVP8 ":
        width, height = (side & 0x3FFF for side in _numbers("<HH", data, 26))
    elif data[8:16] == b"WEBPVP8L":
        (sides,) = _numbers("<I", data, 21)
        width, height = (1 + (sides >> bit & 0x3FFF) for bit in (0, 14)) if sides else (0, 0)
    elif data[8:16] == b"WEBPVP8X":
        low = _numbers("<BHBH", data, 24)
        width, height = 1 + low[0] + (low[1] << 8), 1 + low[2] + (low[3] << 8)
    elif data[4:8] == b"ftyp":  # AVIF has several, of its tiles and of the whole
        places = [match.start() for match in re.finditer(b"ispe", data)]
        width, height = max((_numbers(">II", data, place + 8) for place in places), default=(0, 0))
    elif data[:1] == b"P" and data[1:2] in b"123456":
        width, height = _netpbm(data[:1000])
    else:
        tags = tiff_tags(data)
        width, height = numbers(tags, _WIDTH, 0)[0], numbers(tags, _HEIGHT, 0)[0]
    return height, width


def _numbers(form: str, data: bytes, place: int) -> tuple[int, ...]:
    """Returns the numbers at a place; zeros where the data end before."""
    count = len(form) - 1
    if place < 0 or place + struct.calcsize(form) > len(data):
        return (0,) * count
    return struct.unpack_from(form, data, place)


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields (marker, place after it) of a JPEG's header, up to its picture, as libjpeg finds them.

    What stands between a segment's end and the next marker is passed over.
    """
    place = 2
    while found := _MARKER.search(data, place):
        marker, place = found[1][0], found.end()
        yield marker, place
        if marker in (_SCAN, _END):
            return
        if marker not in _ALONE:
            place += max(2, int.from_bytes(data[place : place + 2], "big"))


def _frame_sides(data: bytes) -> int:
    """Returns the place of the sides in a JPEG's first frame header (SOF); -1 if there is none."""
    frames = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
    return next((place + 3 for marker, place in _jpeg_markers(data) if marker in frames), -1)


def _netpbm(head: bytes) -> tuple[int, int]:
    """Returns the width and height in a PBM, PGM or PPM file's header; zeros if it has none."""
    words = b" ".join(line.partition(b"#")[0] for line in head.split(b"\n")).split()
    sides = words[1:3]
    if len(sides) < 2 or not all(side.isdigit() and len(side) < 20 for side in sides):
        return 0, 0
    return int(sides[0]), int(sides[1])


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
    """Returns EXIF's orientation of an encoded PNG, WebP or JPEG: 1 to 8, where 1 is upright."""
    # A JPEG has it before the pixels; looking through those would take as long as a tenth of them.
    head = data[: _frame_sides(data) + _TAIL] if data.startswith(JPEG) else data
    if not any(mark in head for mark in (b"eXIf", b"EXIF", b"Exif")):
        return 1
    try:
        with PIL.Image.open(io.BytesIO(data)) as picture:
            if data.startswith(JPEG):  # of which decoders follow Exif alone, and Pillow XMP too
                exif = PIL.Image.Exif()
                exif.load(picture.info.get("exif", b""))
            else:
                exif = picture.getexif()
            found = exif.get(ORIENTATION, 1)
    except (*DAMAGE, PIL.Image.DecompressionBombError):
        return 1
    return found if found in range(1, 9) else 1


def is_grey_jpeg(data: bytes) -> bool:
    """Returns whether a JPEG has one component, as its first frame header (SOF) says."""
    place = _frame_sides(data) + 4  # behind height and width
    return place >= 4 and data[place : place + 1] == b"\1"


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
    """Returns whether the end of a PNG or JPEG file is missing, by its chunks or its marker.

    A PNG's chunk may say that it has gigabytes, and OpenCV takes that memory before it reads them.
    """
    if data.startswith(PNG):
        place = 8
        while place + 12 <= len(data) and data[place + 4 : place + 8] != b"IEND":
            place += 12 + int.from_bytes(data[place : place + 4], "big")
        return place + 12 > len(data)
    if not data.startswith(b"\xff\xd8"):
        return False
    # The marker must follow the picture: thumbnails in the header have their own.
    last = max((place for _, place in _jpeg_markers(data)), default=2)
    return data.find(b"\xff\xd9", last - 2) < 0
