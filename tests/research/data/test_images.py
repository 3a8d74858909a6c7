import io
import json

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from research.data.images import Mapped, Preprocessing, fit, list_images, read, statistics
from research.data.source import Arrays, decode
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


def test_pad_centres_and_never_enlarges():
    image = np.full((28, 28, 1), 200, np.uint8)
    padded = fit(image, Preprocessing((32, 32), 1, "pad"))
    assert padded.shape == (32, 32, 1)
    np.testing.assert_array_equal(padded[2:30, 2:30], image)
    assert padded.sum() == image.sum()
    wide = fit(np.full((50, 100, 3), 200, np.uint8), Preprocessing((32, 32), 3, "pad"))
    assert (wide[8:24] == 200).all() and wide[:8].max() == wide[24:].max() == 0


def test_letterbox_enlarges_too():
    wide = fit(np.full((4, 8, 3), 200, np.uint8), Preprocessing((32, 32), 3, "letterbox"))
    assert (wide[8:24] == 200).all() and wide[:8].max() == wide[24:].max() == 0


def test_stretch_averages_when_it_shrinks():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 10
    small = fit(image, Preprocessing((2, 2), 1, "stretch"))
    blocks = image.reshape(2, 2, 2, 2).astype(float).mean((1, 3))
    assert abs(small[:, :, 0] - blocks).max() <= 0.5


def test_crop_takes_the_centre_of_the_short_side():
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 255
    assert (fit(image, Preprocessing((5, 5), 3, "crop")) == 255).all()
    # The usual evaluation crop: int(224 / 256 * min(h, w)) pixels, then a bicubic resize.
    image = np.random.default_rng(1).integers(0, 256, (400, 600, 3)).astype(np.uint8)
    side = int(224 / 256 * 400)
    top, left = (400 - side + 1) // 2, (600 - side + 1) // 2
    region = image[top : top + side, left : left + side]
    expected = np.asarray(Image.fromarray(region).resize((224, 224), Image.Resampling.BICUBIC))
    recipe = Preprocessing((224, 224), 3, "crop", "bicubic", 224 / 256)
    np.testing.assert_array_equal(fit(image, recipe), expected)


def test_channels_are_converted():
    grey = np.full((8, 8, 1), 77, np.uint8)
    np.testing.assert_array_equal(fit(grey, Preprocessing((8, 8), 3)), np.full((8, 8, 3), 77))
    colour = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    assert fit(colour, Preprocessing((8, 8), 1))[0, 0, 0] == 76  # 0.299 of red (ITU-R BT.601)


@pytest.mark.parametrize("resize", ["pad", "letterbox", "stretch", "crop"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 500, 3), (37, 20, 3), (500, 3, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_fits(resize, shape, channels):
    image = fit(np.ones(shape, np.uint8), Preprocessing((24, 32), channels, resize))
    assert image.shape == (24, 32, channels) and image.dtype == np.uint8


def test_preprocessing_survives_json():
    recipe = Preprocessing((24, 32), 3, "crop", "bicubic", 0.875, (1.5, 2.5, 3.5), (4.0, 5.0, 6.0))
    assert Preprocessing.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@pytest.mark.parametrize(
    "options",
    [{"channels": 2}, {"image_size": (0, 4)}, {"resize": "squash"}, {"interpolation": "sinc"}],
)
def test_bad_preprocessing_is_refused(options):
    with pytest.raises(Exception, match=r"channels|image size|squash|sinc"):
        Preprocessing(**{"image_size": (4, 4), **options})


def test_statistics_are_exact_and_standardise():
    images = np.random.default_rng(2).integers(0, 256, (300, 5, 4, 3)).astype(np.uint8)
    images[..., 2] = 9
    arrays = Arrays({"image": images, "label": np.zeros(300, np.int32)})
    mean, std = statistics(arrays)
    np.testing.assert_allclose(mean, images.reshape(-1, 3).mean(0, dtype=float), rtol=1e-12)
    np.testing.assert_allclose(std[:2], images.reshape(-1, 3).std(0, dtype=float)[:2], rtol=1e-12)
    assert std[2] == 1  # a channel that never changes stays finite
    recipe = Preprocessing((5, 4), 3, mean=mean, std=std)
    for module in (np, jnp):
        scaled = recipe.standardise(module.asarray(images))
        assert scaled.dtype == np.float32
        values = np.asarray(scaled, np.float64).reshape(-1, 3)
        np.testing.assert_allclose(values.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(values.std(0), [1, 1, 0], atol=1e-5)
        np.testing.assert_allclose(recipe.restore(scaled), images, atol=1e-3)


class Varied:
    """Images of many sizes."""

    labels = np.arange(30, dtype=np.int32)

    def __len__(self):
        return 30

    def __getitem__(self, index):
        image = np.full((10 + index, 20, 3), index, np.uint8)
        return {"image": image, "label": np.asarray(index, np.int32)}


def test_mapped_examples_have_one_size():
    mapped = Mapped(Varied(), Preprocessing((16, 16), 3, "stretch"))
    arrays = decode(mapped)
    assert arrays.fields["image"].shape == (30, 16, 16, 3)
    np.testing.assert_array_equal(arrays.fields["image"][:, 8, 8, 0], np.arange(30))
    assert mapped.labels is Varied.labels
    # In memory, or read one by one, the numbers are the same; few evenly spaced ones estimate them.
    assert statistics(arrays) == statistics(mapped)
    assert statistics(mapped, most=10)[0][0] == pytest.approx(14.5)


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
