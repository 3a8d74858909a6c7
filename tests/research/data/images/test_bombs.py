"""Images that say they are huge are refused by what they say, before any memory is taken."""

import io
import resource
import struct
import tracemalloc
import zlib

import numpy as np
import PIL.Image
import pytest

from research.data.images.headers import MOST_PIXELS, stated_size
from research.data.images.masks import decode_mask
from research.data.images.reading import decode_image, read
from research.errors import UserError

SIDE = 100_000


def encoded(kind, size=(10, 12), mode="RGB", **options):
    file = io.BytesIO()
    PIL.Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


def png(width, height):
    """A whole PNG with right checksums, whose rows are not there."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)]
    chunks += [b"IDAT" + zlib.compress(bytes(1000)), b"IEND"]
    parts = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(width, height):
    return encoded("TIFF").replace(
        struct.pack("<HHI", 256, 4, 1) + struct.pack("<I", 10),
        struct.pack("<HHI", 256, 4, 1) + struct.pack("<I", width),
    )


def jpeg(width, height):
    data = encoded("JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


HUGE = {
    "png": png(SIDE, SIDE),
    "png of another shape": png(2**31 - 1, 1),
    "jpeg": jpeg(65_000, 65_000),
    "jpeg with a stray byte": jpeg(65_000, 65_000).replace(b"\xff\xc0", b"\0\xff\xc0"),
    "jpeg with a stuffed byte": jpeg(65_000, 65_000).replace(b"\xff\xc0", b"\xff\0\xff\xc0"),
    "jpeg with a restart": jpeg(65_000, 65_000).replace(b"\xff\xc0", b"\xff\xd3\xff\xff\xc0"),
    "bmp": encoded("BMP")[:18] + struct.pack("<ii", SIDE, -SIDE) + encoded("BMP")[26:],
    "gif": encoded("GIF", mode="P")[:6] + struct.pack("<HH", 65_000, 65_000) + b"\0" * 30,
    "ppm": b"P6\n# a\n100000 100000\n255\n",
    "tiff": tiff(2**30, 12),
    "webp": encoded("WEBP", mode="RGBA")[:24] + b"\xff" * 6 + b"\0" * 30,
    "avif": encoded("AVIF").replace(b"ispe" + bytes(4) + struct.pack(">II", 10, 12),
                                    b"ispe" + bytes(4) + struct.pack(">II", SIDE, SIDE)),
}  # fmt: skip


@pytest.mark.parametrize("kind", HUGE)
@pytest.mark.parametrize("decode", [decode_image, decode_mask])
def test_a_small_file_that_says_it_is_huge_is_refused(kind, decode):
    tracemalloc.start()
    with pytest.raises(
        UserError, match=r"a.png: has [\d,]+ x [\d,]+ pixels, more than 268,435,456"
    ):
        decode(HUGE[kind], "a.png")
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "AVIF"])
def test_the_stated_size_is_pillows(kind):
    data = encoded(kind, (31, 17), "P" if kind == "GIF" else "RGB")
    assert stated_size(data) == (17, 31)
    assert stated_size(data[:12]) in ((0, 0), (17, 31))
    assert decode_image(data, "a").shape[:2] == (17, 31)


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"mode": "RGBA"}])
def test_each_kind_of_webp_states_its_size(options):
    for size in ((31, 17), (16_383, 1), (1, 16_383)):
        data = encoded("WEBP", size, **options)
        assert stated_size(data) == size[::-1]
    assert decode_image(data, "a").shape[:2] == size[::-1]
    assert stated_size(data[:20]) in ((0, 0), (1, 1))


SIZELESS = {
    "jpeg 2000": encoded("JPEG2000", (6000, 6000)),
    "pam": b"P7\nWIDTH 6000\nHEIGHT 6000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + bytes(30),
    "pfm": b"PF\n6000 6000\n-1.0\n" + bytes(30),
    "hdr": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 6000 +X 6000\n" + bytes(30),
    "sun": struct.pack(">8I", 0x59A66A95, 6000, 6000, 24, 6000 * 6000 * 3, 1, 0, 0) + bytes(30),
    "ppm behind a comment": b"P6\n#" + b"a" * 2000 + b"\n6000 6000\n255\n" + bytes(30),
}


@pytest.mark.parametrize("kind", SIZELESS)
@pytest.mark.parametrize("decode", [decode_image, decode_mask])
def test_what_states_no_size_is_not_decoded(kind, decode):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"a.png: is damaged, or no image"):
        decode(SIZELESS[kind], "a.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**14  # KiB


def test_long_sides_of_few_pixels_are_read():
    wide = encoded("PNG", (SIDE, 2), "L")
    assert decode_image(wide, "a").shape == (2, SIDE, 1)


def test_the_content_says_what_a_file_is_and_not_its_name(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded("JPEG"))
    assert read(tmp_path / "a.png").shape == (12, 10, 3)
    for content in (b"#!/bin/sh\necho\n", b"<svg/>", b"PK\x03\x04", b""):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(UserError, match=r"a.jpg: is damaged, or no image"):
            read(tmp_path / "a.jpg")


def test_a_chunk_that_says_it_has_gigabytes_takes_no_memory():
    data = bytearray(encoded("PNG"))
    place = data.index(b"IDAT") - 4
    data[place : place + 4] = b"\xc3\xa9\0\x52"
    for decode in (decode_image, decode_mask):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(UserError, match=r"a.png: is truncated"):
            decode(bytes(data), "a.png")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**18  # KiB


@pytest.mark.parametrize("decode", [decode_image, decode_mask])
def test_more_pixels_than_the_bytes_can_hold_are_refused(decode):
    with pytest.raises(UserError, match=r"has 14,680,074 x 12 pixels, more than [\d,]+ bytes can"):
        decode(tiff(14_680_074, 12), "a")
    flat = encoded("PNG", (2**13, 2**12), "1")  # all of one colour, as dense as PNGs become
    assert decode(flat, "a").shape[:2] == (2**12, 2**13)


def test_the_limit_is_of_pixels_that_are_really_read():
    assert np.prod(stated_size(png(2**14, 2**14)), dtype=np.int64) == MOST_PIXELS
    with pytest.raises(UserError, match="damaged"):  # within the limit, it is decoded
        decode_image(png(64, 64), "a")
