import io

import cv2
import numpy as np
import pytest
from PIL import Image

from research.data.images import list_images, read
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


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_camera_s_orientation_is_followed(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    path = save(tmp_path / f"a.{kind}", SMOOTH, exif=exif)
    upright = {3: 2, 6: 3, 8: 1}[orientation]  # quarter turns against the clock
    expected = np.rot90(SMOOTH, upright).astype(int)
    image = read(path).astype(int)
    assert image.shape == expected.shape and abs(image - expected).mean() < 4


def encoded(kind, **options):
    file = io.BytesIO()
    Image.fromarray(SMOOTH).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_truncated_files_are_named(tmp_path, kind, share):
    path = tmp_path / f"cut.{kind.lower()}"
    data = encoded(kind)
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
