"""Masks as people and programs save them, and what is said of those that are wrong."""

import io

import cv2
import numpy as np
import PIL.Image
import pytest

from research.data.images.masks import (
    IGNORE,
    OwnSize,
    decode_mask,
    fit_pair,
    ignoring,
    palette,
    plain_classes,
    read_classes,
    restore,
    save_mask,
    sizes_of,
    to_classes,
)
from research.data.images.preprocessing import Preprocessing, fit
from research.data.sources.examples import read_many
from research.errors import UserError

VALUES = np.array([[0, 1, 2], [2, 2, 0]], "u1")
NOISE = np.random.default_rng(0).integers(0, 255, (40, 40)).astype("u1")  # of 1,600 bytes
COLOURS = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0)}


def encoded(picture, kind="PNG"):
    data = io.BytesIO()
    picture.save(data, kind)
    return data.getvalue()


def as_palette(values):
    picture = PIL.Image.fromarray(values)
    picture.putpalette([channel for k in range(3) for channel in COLOURS[k]])
    assert picture.mode == "P"
    return picture


def as_colours(values):
    return PIL.Image.fromarray(np.array([COLOURS[v] for v in values.flat], "u1").reshape(2, 3, 3))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(PIL.Image.fromarray(VALUES)), VALUES),
        (encoded(as_palette(VALUES)), VALUES),  # indices, not the colours they stand for
        (cv2.imencode(".png", VALUES.astype("u2") * 1000)[1].tobytes(), VALUES.astype(int) * 1000),
        (encoded(PIL.Image.fromarray(VALUES > 0)), VALUES > 0),
        (encoded(PIL.Image.fromarray(np.stack([VALUES] * 3, -1))), VALUES),  # grey saved as RGB
        (encoded(PIL.Image.fromarray(np.stack([VALUES, VALUES * 0], -1))), VALUES),  # grey, alpha
        (encoded(PIL.Image.fromarray(VALUES), "TIFF"), VALUES),
    ],
    ids=["grey", "palette", "16 bits", "1 bit", "rgb", "alpha", "tiff"],
)
def test_values_are_read_as_they_were_saved(data, expected):
    np.testing.assert_array_equal(decode_mask(data, "mask"), expected)


def test_colours_are_read_from_colour_and_palette_images():
    expected = [[(r << 16) + (g << 8) + b for r, g, b in map(COLOURS.get, row)] for row in VALUES]
    for picture in (as_colours(VALUES), as_palette(VALUES)):
        np.testing.assert_array_equal(decode_mask(encoded(picture), "mask", True), expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"nothing", "m.png: is damaged, or no image"),
        (
            encoded(PIL.Image.fromarray(NOISE))[:900],
            "m.png: is truncated",
        ),
        (encoded(PIL.Image.fromarray(VALUES), "JPEG"), "m.png: is a JPEG, .* save masks as PNG"),
        (encoded(as_colours(VALUES)), "m.png: is in colour; name the colours in a class table"),
        (encoded(PIL.Image.fromarray(VALUES.astype("f")), "TIFF"), "m.png: has float32 values"),
    ],
    ids=["text", "cut", "jpeg", "colour", "float"],
)
def test_what_is_no_mask_is_said(data, message):
    with pytest.raises(UserError, match=message):
        decode_mask(data, "m.png")


def test_a_value_of_no_class_is_named_with_its_file():
    classes = ignoring(plain_classes(["sky", "sea"]), -1)
    assert to_classes(np.array([[0, 1, 255]]), classes, "m").tolist() == [[0, 1, IGNORE]]
    with pytest.raises(UserError, match=r"m\.png: value 7 \(2 pixels\) is none of the 2 classes"):
        to_classes(np.array([[0, 7, 7, 300]]), classes, "m.png")


def test_class_tables(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("# a comment\n\n0, sky\n10 the sea\n20 Void\n")
    table = read_classes(file)
    assert table.names == ("sky", "the sea") and table.keys == {0: 0, 10: 1, 20: IGNORE}
    file.write_text("128 0 0 roof\n0 0 128 wall 2\n")  # as CamVid's
    table = read_classes(file)
    assert table.names == ("roof", "wall 2") and table.colours
    assert table.keys == {128 << 16: 0, 128: 1}
    for text, message in {
        "0 sky\nsea\n": "line 2: is neither",
        "0 sky\n1 1 1 sea\n": "either values or colours",
        "0 sky\n0 sea\n": "line 2: '0 sea' is there twice",
        "0 sky\n": "names 1 classes",
        "0 0 300 sky\n1 1 1 sea\n": "line 1: is neither",
    }.items():
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            read_classes(file)


@pytest.mark.parametrize("resize", ["pad", "letterbox", "stretch", "crop"])
@pytest.mark.parametrize("shape", [(30, 20), (12, 40), (16, 16)])
def test_a_mask_lies_on_its_image_and_comes_back(resize, shape):
    mask = np.zeros(shape, "u1")
    mask[shape[0] // 4 : shape[0] // 2, shape[1] // 4 : shape[1] // 2] = 1
    image = np.repeat(mask[..., None] * 200, 3, axis=2) + 50
    preprocessing = Preprocessing((16, 16), 3, resize)
    fitted = fit_pair({"image": image, "segmentation": mask}, preprocessing)
    np.testing.assert_array_equal(fitted["image"], fit(image, preprocessing))
    beside = fitted["segmentation"] == IGNORE
    np.testing.assert_array_equal(beside, fitted["image"][..., 0] < 40)  # black beside the image
    inside = ~beside
    bright = fitted["image"][..., 0] > 150  # half covered pixels may go either way
    assert ((fitted["segmentation"] == 1) == bright)[inside].mean() > 0.9
    back = restore(fitted["segmentation"], *shape, preprocessing)
    assert back.shape == shape
    seen = back != IGNORE
    assert seen.all() or resize == "crop"
    assert (back == mask)[seen].mean() > 0.85
    if shape == (16, 16):
        np.testing.assert_array_equal(back, mask)


def test_masks_of_their_own_size_are_read_once():
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, 256, (5 + i, 9)).astype("u1") for i in range(4)]
    reads = []

    class Split:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            reads.append(index)
            return {"image": np.zeros((5 + index, 9, 3), "u1"), "segmentation": masks[index]}

    held = OwnSize(Split())
    for _ in range(2):
        for index, example in zip((3, 0, 3), read_many(held, [3, 0, 3]), strict=True):
            np.testing.assert_array_equal(example["segmentation"], masks[index])
    np.testing.assert_array_equal(held[2]["segmentation"], masks[2])
    assert len(held) == 4 and sorted(reads) == [0, 2, 3]
    assert sizes_of(Split(), most=2) == [(6, 9), (8, 9)]  # evenly spaced


def test_palette_pngs_hold_numbers_and_voc_colours(tmp_path):
    assert palette()[[0, 1, 2, 15, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [224, 224, 192],
    ]  # fmt: skip
    save_mask(tmp_path / "m.png", VALUES)
    picture = PIL.Image.open(tmp_path / "m.png")
    np.testing.assert_array_equal(np.asarray(picture), VALUES)
    assert np.asarray(picture.convert("RGB"))[0, 2].tolist() == [0, 128, 0]


def test_a_mask_is_turned_as_its_own_exif_says(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x112] = 6
    PIL.Image.fromarray(np.rot90(VALUES)).save(tmp_path / "a.png", exif=exif)
    data = (tmp_path / "a.png").read_bytes()
    np.testing.assert_array_equal(decode_mask(data, "a.png"), VALUES)


def test_masks_of_hundreds_of_megapixels_are_read():
    file = io.BytesIO()
    PIL.Image.new("1", (13_500, 13_500), 1).save(file, "PNG", compress_level=1)
    mask = decode_mask(file.getvalue(), "a.png")
    assert mask.shape == (13_500, 13_500) and mask.dtype == np.uint8 and mask[-1, -1] == 1


def test_masks_of_several_pages_are_refused(tmp_path):
    pages = [PIL.Image.fromarray(VALUES)] * 2
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match=r"a\.tif: holds 2 pages"):
        decode_mask((tmp_path / "a.tif").read_bytes(), "a.tif")
