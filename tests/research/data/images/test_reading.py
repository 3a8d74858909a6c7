import io
import zlib
from importlib.metadata import version

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from research.data.images.reading import list_images, read, upright_size, white_of
from research.errors import UserError

PICTURE = (np.random.default_rng(0).integers(0, 256, (4, 6, 3)) // 8 * 8).astype(np.uint8)
SMOOTH = np.linspace(0, 255, 40 * 60 * 3).reshape(40, 60, 3).astype(np.uint8)


def save(path, image, **options):
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(path, **options)
    return path


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "webp", "ppm"])
def test_colours_come_in_the_order_red_green_blue(tmp_path, kind):
    options = {"lossless": True} if kind == "webp" else {}
    path = save(tmp_path / f"a.{kind}", PICTURE, **options)
    np.testing.assert_array_equal(read(path), PICTURE)


def test_jpeg_is_read_as_another_decoder_reads_it(tmp_path):
    path = save(tmp_path / "a.jpg", SMOOTH, quality=95)
    other = np.asarray(Image.open(path)).astype(int)
    assert abs(read(path).astype(int) - other).max() <= 3  # decoders round differently


def test_grey_images_have_one_channel(tmp_path):
    np.testing.assert_array_equal(
        read(save(tmp_path / "a.png", PICTURE[:, :, 0])), PICTURE[:, :, :1]
    )


def test_sixteen_bits_become_eight(tmp_path):
    wide = (PICTURE[:, :, 0].astype(np.uint16) * 257) + 100
    cv2.imwrite(str(tmp_path / "a.png"), wide)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), PICTURE[:, :, :1])


def test_transparency_lies_over_white(tmp_path):
    alpha = np.zeros((4, 6, 1), np.uint8)
    alpha[:, 3:] = 255
    image = read(save(tmp_path / "a.png", np.concatenate([PICTURE, alpha], 2)))
    assert (image[:, :3] == 255).all()
    np.testing.assert_array_equal(image[:, 3:], PICTURE[:, 3:])


def test_palettes_and_bilevel_images(tmp_path):
    palette = Image.fromarray(PICTURE).convert("P")
    for kind in ("png", "gif", "bmp"):
        image = read(save(tmp_path / f"p.{kind}", palette))
        np.testing.assert_array_equal(image, np.asarray(palette.convert("RGB")))
    bilevel = PICTURE[:, :, 0] > 128
    image = read(save(tmp_path / "b.png", Image.fromarray(bilevel)))
    np.testing.assert_array_equal(image[:, :, 0], bilevel * np.uint8(255))


# EXIF's orientation -> what brings the stored rows and columns upright.
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, 3),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}
ALPHA = np.broadcast_to(np.linspace(-100, 400, 60).clip(0, 255).astype(np.uint8), (40, 60))


def over_white(colours, alpha):
    share = alpha[:, :, None] / 255
    return colours * share + 255 * (1 - share)


def pictures():
    """{name: (Pillow's image, what it is over white)}."""
    grey = SMOOTH[:, :, 0]
    palette = Image.fromarray(SMOOTH).quantize(200)
    indices = np.array(palette)
    indices[10:20] = 255
    holes = Image.fromarray(indices, "P")
    holes.putpalette(palette.getpalette()[:600] + [7] * 168)
    whole = np.array(palette.convert("RGB"))
    whole[10:20] = 255
    holes.info["transparency"] = 255
    both = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(ALPHA)])
    return {
        "RGB": (Image.fromarray(SMOOTH), SMOOTH),
        "RGBA": (Image.fromarray(np.dstack([SMOOTH, ALPHA])), over_white(SMOOTH, ALPHA)),
        "LA": (both, over_white(np.repeat(grey[:, :, None], 3, 2), ALPHA)),
        "P": (holes, whole),
    }


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("jpg", "RGB"), ("png", "RGB"), ("webp", "RGB"), ("tiff", "RGB")),
        *(("png", "RGBA"), ("webp", "RGBA"), ("tiff", "RGBA"), ("avif", "RGBA")),
        *(("png", "LA"), ("tiff", "LA"), ("png", "P")),
    ],
)
def test_a_camera_s_orientation_is_followed_and_transparency_lies_over_white(tmp_path, kind, mode):
    picture, shown = pictures()[mode]
    lossy = {"quality": 98}
    lossless = {"lossless": True, "exact": True}
    options = {"webp": lossless, "avif": lossy, "jpg": lossy}.get(kind, {})
    for orientation, upright in UPRIGHT.items():
        exif = Image.Exif()
        exif[0x112] = orientation
        path = save(tmp_path / f"{orientation}.{kind}", picture, exif=exif, **options)
        image = read(path)
        expected = upright(shown)
        assert image.shape == expected.shape
        with Image.open(path) as opened:
            assert upright_size(opened) == image.shape[:2]
        limit = {"jpg": 4, "avif": 2}.get(kind, 0.51)  # decoders round differently
        error = np.abs(image.astype(float) - expected).mean()
        assert error < limit, f"orientation {orientation}"


def test_transparency_of_what_knows_no_orientation(tmp_path):
    holes, shown = pictures()["P"]
    np.testing.assert_array_equal(read(save(tmp_path / "a.gif", holes, transparency=255)), shown)
    picture, shown = pictures()["RGBA"]
    stored = cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGBA2BGRA)
    cv2.imwrite(str(tmp_path / "a.bmp"), stored)  # with a mask for alpha
    assert np.abs(read(tmp_path / "a.bmp") - shown).max() <= 0.51
    cv2.imwrite(str(tmp_path / "a.png"), stored.astype(np.uint16) * 257)
    assert np.abs(read(tmp_path / "a.png") - shown).max() <= 0.51


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("alpha", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_tiffs_are_read_or_refused(tmp_path, mode, alpha, dtype):
    """Colours may be stored multiplied by alpha (associated), in 8 or 16 bits, or as planes."""
    picture, shown = pictures()[mode]
    stored = np.asarray(picture)
    if alpha == "assocalpha":
        colours = (stored[:, :, :-1] * (ALPHA[:, :, None] / 255)).round()
        stored = np.dstack([colours.astype(np.uint8), ALPHA])
    stored = stored.astype(dtype) * dtype(257 if dtype is np.uint16 else 1)
    options = {
        "photometric": "rgb" if mode == "RGBA" else "minisblack",
        "extrasamples": [alpha],
    }
    tifffile.imwrite(tmp_path / "a.tiff", stored, **options)
    if (mode, dtype) == ("LA", np.uint16):
        with pytest.raises(UserError, match=r"a\.tiff: has transparency .* save it as PNG"):
            read(tmp_path / "a.tiff")
    elif (mode, alpha) != ("LA", "assocalpha") or version("pillow") >= "13":  # 12 refuses these
        assert np.abs(read(tmp_path / "a.tiff") - shown).max() < 2  # rounded twice
    planes = np.ascontiguousarray(stored.transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / "planes.tiff", planes, planarconfig="separate", **options)
    with pytest.raises(UserError, match=r"planes\.tiff: has transparency .* save it as PNG"):
        read(tmp_path / "planes.tiff")


def encoded(kind, picture=SMOOTH, **options):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_truncated_files_are_named(tmp_path, kind, share, transparent):
    path = tmp_path / f"cut.{kind.lower()}"
    picture = SMOOTH if not transparent or kind == "JPEG" else np.dstack([SMOOTH, ALPHA])
    data = encoded(kind, picture)
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=rf"cut\.{kind.lower()}: is (truncated|damaged)"):
        read(path)


def test_a_thumbnail_does_not_hide_a_missing_end(tmp_path):
    inside = encoded("JPEG")  # a whole JPEG in the header, as cameras store it
    data = encoded("JPEG")
    header = b"\xff\xe1" + (len(inside) + 2).to_bytes(2, "big") + inside
    whole = data[:2] + header + data[2:]
    (tmp_path / "a.jpg").write_bytes(whole)
    assert read(tmp_path / "a.jpg").shape == SMOOTH.shape
    (tmp_path / "a.jpg").write_bytes(whole[:-20])
    with pytest.raises(UserError, match="truncated"):
        read(tmp_path / "a.jpg")


@pytest.mark.parametrize("content", [b"", b"hello, I am no image", b"\xff\xd8", b"\x89PNG\r\n"])
def test_what_is_no_image_is_named(tmp_path, content):
    path = tmp_path / "notes.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"notes\.png: is (damaged|truncated)"):
        read(path)


def test_a_flipped_byte_in_a_png_is_found(tmp_path):
    data = bytearray(encoded("PNG"))
    data[len(data) // 2] ^= 255
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        read(tmp_path / "a.png")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nix\.png: cannot be read \(No such file"):
        read(tmp_path / "nix.png")


def test_inputs_are_listed(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    listed = [str(p.relative_to(tmp_path)) for p in list_images([tmp_path])]
    assert listed == ["a.JPG", "b.png", "sub/c.png"]
    both = list_images([tmp_path / "notes.txt", tmp_path / "sub"])
    assert [p.name for p in both] == ["notes.txt", "c.png"]
    with pytest.raises(UserError, match="nix: no such file or folder"):
        list_images([tmp_path / "nix"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: holds no image files"):
        list_images([tmp_path / "empty"])


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparent_value_of_a_grey_png_lies_over_white(tmp_path, bits):
    grey = SMOOTH[:, :, 0]
    stored = grey if bits == 8 else grey.astype(np.uint16) * 257
    options = {"transparency": int(stored[5, 5])}
    if bits == 8:
        path = save(tmp_path / "a.png", Image.fromarray(stored), **options)
    else:  # Pillow writes no such chunk of 16 bits
        data = cv2.imencode(".png", stored)[1].tobytes()
        chunk = b"tRNS" + options["transparency"].to_bytes(2, "big")
        whole = (2).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        place = data.index(b"IDAT") - 4
        path = tmp_path / "a.png"
        path.write_bytes(data[:place] + whole + data[place:])
    expected = np.repeat(np.where(grey == grey[5, 5], 255, grey)[:, :, None], 3, 2)
    np.testing.assert_array_equal(read(path), expected)


def test_a_jpeg_with_fill_bytes_is_whole(tmp_path):
    # ITU T.81, B.1.1.2: any marker may be preceded by bytes 0xFF.
    data = encoded("JPEG")
    second = data.index(b"\xff\xdb")
    filled = data[:2] + b"\xff\xff" + data[2:second] + b"\xff" * 3 + data[second:]
    (tmp_path / "a.jpg").write_bytes(filled)
    (tmp_path / "b.jpg").write_bytes(data)
    np.testing.assert_array_equal(read(tmp_path / "a.jpg"), read(tmp_path / "b.jpg"))
    (tmp_path / "a.jpg").write_bytes(filled[:-20])
    with pytest.raises(UserError, match="truncated"):
        read(tmp_path / "a.jpg")


def test_jfif_and_avif_are_images_and_heic_is_counted(tmp_path, capsys):
    for name, kind in (
        ("a.jfif", "JPEG"),
        ("b.avif", "AVIF"),
        ("c.JPE", "JPEG"),
        ("d.heic", "PNG"),
    ):
        (tmp_path / name).write_bytes(encoded(kind))
    listed = list_images([tmp_path])
    assert [path.name for path in listed] == ["a.jfif", "b.avif", "c.JPE"]
    assert all(np.abs(read(path).astype(int) - SMOOTH).mean() < 4 for path in listed)
    said = capsys.readouterr().out
    assert "4 found, 3 used, 1 left out (of a kind that is not read, save them as PNG: 1)" in said


@pytest.mark.parametrize("bands", [2, 4, 5])
@pytest.mark.parametrize("layout", ["contig", "separate"])
def test_bands_that_are_no_colours_are_refused(tmp_path, bands, layout):
    stored = np.stack([SMOOTH[:, :, 0]] * bands, -1 if layout == "contig" else 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", planarconfig=layout)
    with pytest.raises(UserError, match=rf"a\.tif: has {bands} bands; grey and RGB are read"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("big", [False, True])
def test_stacks_and_films_are_refused_and_smaller_versions_are_not(tmp_path, big):
    stack = np.stack([SMOOTH[:, :, 0]] * 3)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", bigtiff=big)
    with pytest.raises(UserError, match=r"a\.tif: holds 3 pages or frames; save the one"):
        read(tmp_path / "a.tif")
    with tifffile.TiffWriter(tmp_path / "pyramid.tif", bigtiff=big) as file:
        file.write(SMOOTH, photometric="rgb")
        file.write(SMOOTH[::2, ::2], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read(tmp_path / "pyramid.tif"), SMOOTH)
    for kind in ("gif", "webp", "png"):
        films = {"save_all": True, "append_images": [Image.fromarray(255 - SMOOTH)]}
        path = save(tmp_path / f"a.{kind}", SMOOTH, **films)
        with pytest.raises(UserError, match=rf"a\.{kind}: holds 2 pages"):
            read(path)


@pytest.mark.parametrize(
    ("bits", "most"), [(8, 255), (10, 700), (12, 4095), (12, 1024), (14, 4096)]
)
@pytest.mark.parametrize("kind", ["png", "tif", "pgm"])
def test_fewer_bits_in_sixteen_are_found_over_the_whole_set(tmp_path, bits, most, kind, capsys):
    dark, light = np.zeros((2, 4, 6), np.uint16)
    light[0, 0] = most
    dark[0, 0] = most // 2
    files = [tmp_path / f"{k}.{kind}" for k in range(2)]
    for file, values in zip(files, (dark, light), strict=True):
        cv2.imwrite(str(file), values)
    cv2.imwrite(str(tmp_path / "c.png"), np.full((4, 6), 255, np.uint8))
    white = white_of([*files, tmp_path / "c.png", tmp_path / "gone.png"])
    assert white == 2**bits - 1
    assert (
        f"16-bit images hold {bits} bits: training takes {white} for white"
        in capsys.readouterr().out
    )
    shown = [int(read(file, white).max()) for file in files]
    assert shown == [round(255 * (most // 2) / white), round(255 * most / white)]
    assert read(tmp_path / "c.png", white).max() == 255


def test_more_bits_than_were_trained_on_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, 4096]], np.uint16))
    with pytest.raises(UserError, match=r"a\.png: has values up to 4096, .* 4095 is white"):
        read(tmp_path / "a.png", 4095)
    colours = np.full((2, 2, 4), 4095, np.uint16)
    colours[..., 3] = 65535  # opaque
    cv2.imwrite(str(tmp_path / "a.png"), colours)
    assert (read(tmp_path / "a.png", 4095) == 255).all()


def test_sixteen_bits_stay_as_they_are(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, 16384]], np.uint16))
    assert white_of([tmp_path / "a.png"]) == white_of([]) == 65535
    assert not capsys.readouterr().out
