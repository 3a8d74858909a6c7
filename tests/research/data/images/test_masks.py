"""Masks as people and programs save them, and what is said of those that are wrong."""

import io
from collections import Counter

import cv2
import numpy as np
import PIL.Image
import pytest
import toys

from research.data import datasets
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
from research.data.own.masks import load, pair_up
from research.data.sources.source import read_many
from research.data.tasks import segmentation
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


def save(folder, name, values):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(values).save(folder / name)


def make(root, count=5, suffix="", values=VALUES, split=""):
    images, masks = root / "images" / split, root / "masks" / split
    for i in range(count):
        save(images, f"{i}.png", np.full((2, 3), 20 * i, "u1"))
        save(masks, f"{i}{suffix}.png", values)
    return f"{root / 'images'}:{root / 'masks'}"


@pytest.mark.parametrize("suffix", ["", "_label"])
def test_one_s_own_pictures(tmp_path, suffix):
    dataset = datasets.load(f"masks:{make(tmp_path, 10, suffix)}", tmp_path, segmentation.TASK)
    assert dataset.class_names == ("class 0", "class 1", "class 2")
    assert dataset.image_shape == (2, 3, 1)
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 8, "test": 2}
    held = [int(dataset.splits["test"][i]["image"][0, 0, 0]) // 20 for i in range(2)]
    assert held == [2, 7]  # the middle of each five
    np.testing.assert_array_equal(dataset.splits["train"][0]["segmentation"], VALUES)
    assert segmentation.inspect(dataset) == []


def test_folders_of_splits_binary_masks_and_ignored_values(tmp_path):
    make(tmp_path, 3, values=(VALUES > 0).astype("u1") * 255, split="train")
    rest = make(tmp_path, 2, values=VALUES * 0, split="val")
    dataset = load(rest)
    assert dataset.class_names == ("background", "foreground")
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 3, "validation": 2}
    assert dataset.splits["train"][0]["segmentation"].tolist() == [[0, 1, 1], [1, 1, 0]]
    assert segmentation.inspect(dataset) == [
        f"masks:{rest}, validation: class 'foreground' never occurs"
    ]
    other = tmp_path / "other"
    dataset = load(make(other, 5, values=np.array([[0, 1, 9], [1, 1, 0]], "u1")), ignore_label=9)
    assert dataset.splits["train"][0]["segmentation"].tolist() == [[0, 1, 255], [1, 1, 0]]


def test_a_class_table_names_colours_and_the_class_that_never_occurs(tmp_path, capsys):
    rest = make(tmp_path, 5)
    for i in range(5):
        as_colours(VALUES).save(tmp_path / "masks" / f"{i}.png")
    table = tmp_path / "masks" / "classes.txt"
    table.write_text("0 0 0 ground\n0 128 0 tree\n128 0 0 void\n9 9 9 boat\n")
    dataset = load(rest)
    assert dataset.class_names == ("ground", "tree", "boat")
    assert dataset.splits["train"][0]["segmentation"].tolist() == [[0, 255, 1], [1, 1, 0]]
    with pytest.raises(UserError, match=r'--ignore_label=3: .* "void" in the class table'):
        load(rest, ignore_label=3)
    assert "class 'boat' occurs in no mask" in " ".join(capsys.readouterr().out.split())
    problems = segmentation.inspect(dataset)
    assert len(problems) == 2 and "train: class 'boat' never occurs" in problems[0]
    table.rename(tmp_path / "table.csv")
    assert load(f"{rest}:{tmp_path / 'table.csv'}").class_names == dataset.class_names


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda p: (p / "masks/3.png").unlink(),
            r"images/3\.png: has no mask of that name .*1 of 5",
        ),
        (lambda p: (p / "images/3.png").unlink(), r"masks/3\.png: has no image of that name"),
        (
            lambda p: save(p / "masks", "1.png", np.zeros((3, 3), "u1")),
            r"masks/1\.png: is 3 x 3 pixels, its image .*images/1\.png 3 x 2",
        ),
        (
            lambda p: save(p / "masks", "4.png", VALUES + 200),
            r"masks/4\.png: has the value 202, yet only 6 values occur .*class table",
        ),
        (
            lambda p: (p / "masks/classes.txt").write_text("0 sky\n1 sea\n"),
            r"masks/0\.png: value 2 \(3 pixels\) is none of the 2 classes \(0 to 1; 255 ignored\)",
        ),
        (lambda p: (p / "masks/2.png").write_bytes(b"x"), r"masks/2\.png: is damaged"),
        (lambda p: (p / "images/2.png").write_bytes(b"x"), r"images/2\.png: is damaged"),
        (lambda p: save(p / "images", "2.jpg", VALUES), r"has the same name beside it"),
        (lambda p: [f.unlink() for f in (p / "images").iterdir()], "holds no images"),
        (
            lambda p: [save(p / "masks", f"{i}.png", VALUES * 0) for i in range(5)],
            "every mask is background alone; there is nothing to learn",
        ),
    ],
    ids=[
        "no mask",
        "no image",
        "size",
        "value",
        "table",
        "bad mask",
        "bad image",
        "twice",
        "empty",
        "background",
    ],
)
def test_bad_pairs_are_named(tmp_path, spoil, message):
    rest = make(tmp_path, 5)
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        load(rest)


def test_bad_names_of_folders(tmp_path):
    rest = make(tmp_path, 5)
    for wrong, message in {
        rest.split(":")[0]: "write masks:IMAGES_DIR:MASKS_DIR",
        rest + "x": "is no folder",
        rest + ":nowhere.txt": "nowhere.txt: cannot be read",
    }.items():
        with pytest.raises(UserError, match=message):
            load(wrong)
    (tmp_path / "images" / "train").mkdir()
    with pytest.raises(UserError, match="has a folder train"):
        load(rest)


def test_what_cannot_be_read_is_left_out_when_asked(tmp_path):
    rest = make(tmp_path, 6)
    (tmp_path / "masks" / "2.png").write_bytes(b"x")
    with pytest.raises(UserError, match="--skip_corrupt leaves such pairs out"):
        load(rest)
    dataset = load(rest, skip_corrupt=True)
    assert sum(len(split) for split in dataset.splits.values()) == 5
    assert "1 left out (unreadable, or their mask: 1)" in dataset.citation


def test_pairs_sort_naturally(tmp_path):
    make(tmp_path, 11)
    pairs = pair_up(tmp_path / "images", tmp_path / "masks", Counter())
    assert [p[0].rpartition("/")[2] for p in pairs] == [f"{i}.png" for i in range(11)]


def test_layouts_of_tfds_sets_read_what_tfds_wrote(tmp_path):
    import tensorflow_datasets as tfds

    class OxfordIiitPet(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("4.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(None, None, 3)),
                        "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
                    }
                ),
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(3):
                image = PIL.Image.fromarray(np.full((2, 3, 3), i, "u1"))
                mask = PIL.Image.fromarray(VALUES + 1 if i < 2 else VALUES[:1] + 1)
                yield (
                    i,
                    {
                        "image": io.BytesIO(encoded(image)),
                        "segmentation_mask": io.BytesIO(encoded(mask)),
                    },
                )

    builder = OxfordIiitPet(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    dataset = datasets.load("oxford_iiit_pet", tmp_path, segmentation.TASK)
    assert dataset.class_names == ("pet", "background", "outline")
    order = []  # TFDS shuffles
    for i in range(3):
        try:
            example = dataset.splits["train"][i]
            np.testing.assert_array_equal(example["segmentation"], VALUES)
            order.append(int(example["image"][0, 0, 0]))
        except UserError as error:
            assert "the mask is 3 x 1 pixels, the image 3 x 2" in str(error)
            order.append(2)
    assert sorted(order) == [0, 1, 2]
    assert len(segmentation.inspect(dataset)) == 1
    dataset = datasets.load("oxford_iiit_pet", tmp_path, segmentation.task(ignore_label=3))
    first, second = (i for i in range(3) if i != order.index(2))
    for i in (first, second):
        expected = np.where(VALUES == 2, IGNORE, VALUES)  # 3, the outline, is the third class
        np.testing.assert_array_equal(dataset.splits["train"][i]["segmentation"], expected)


def test_a_set_without_masks_is_no_segmentation_set(tmp_path):
    with pytest.raises(UserError, match="digits: is no segmentation set that is known here"):
        datasets.load("digits", tmp_path, segmentation.TASK)


def test_masks_painted_on_pictures_as_they_are_stored_are_named(tmp_path):
    rest = make(tmp_path, 5)
    tall = np.zeros((8, 6, 3), np.uint8)
    (tmp_path / "images" / "2.png").unlink()
    toys.save_turned(tmp_path / "images" / "2.jpg", tall)
    save_mask(tmp_path / "masks" / "2.png", np.ones((6, 8), np.uint8))
    with pytest.raises(UserError, match=r"2\.png: was painted on .*2\.jpg as it is stored, 8 x 6"):
        load(rest)
    save_mask(tmp_path / "masks" / "2.png", np.ones((8, 6), np.uint8))
    dataset = load(rest)
    sizes = {
        x["image"].shape[:2] for s in dataset.splits.values() for x in (s[i] for i in range(len(s)))
    }
    assert (8, 6) in sizes


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


@pytest.mark.parametrize("name", ["unlabelled", "Unlabeled area", "don't care", "no data"])
def test_a_class_that_is_none_by_its_name_is_told_of(name, tmp_path, capsys):
    rest = make(tmp_path)
    table = tmp_path / "classes.txt"
    table.write_text(f"\ufeff0 grass\n1 cow\n2 {name}\n", encoding="utf-8")  # Notepad's mark
    assert load(rest).class_names == ("grass", "cow", name)
    line = f"{table}: {name!r} is trained as a class; --ignore_label=2 makes it count for nothing"
    assert line in capsys.readouterr().out
    dataset = load(rest, ignore_label=2)
    assert dataset.splits["train"][0]["segmentation"][0].tolist() == [0, 1, IGNORE]
    assert "trained as a class" not in capsys.readouterr().out
    table.write_text("0 grass\n1 cow\n2 unavoidable\n")
    load(rest)
    assert "trained as a class" not in capsys.readouterr().out


def test_a_split_of_ignored_pixels_alone_is_not_evaluated(tmp_path, capsys):
    for split in ("train", "val", "test"):
        rest = make(tmp_path, 2, values=np.full((2, 3), 255, "u1") if split == "val" else VALUES,
                    split=split)  # fmt: skip
    rest = f"{tmp_path}/images:{tmp_path}/masks"
    dataset = load(rest)
    assert set(dataset.splits) == {"train", "test"}
    said = capsys.readouterr().out
    assert "validation is not evaluated: every pixel of it is ignored" in said
    assert "6 found, 4 used, 2 left out (of a split that is all ignored: 2)" in said
    save(tmp_path / "masks" / "test", "0.png", np.full((2, 3), 255, "u1"))
    save(tmp_path / "masks" / "test", "1.png", np.full((2, 3), 255, "u1"))
    with pytest.raises(UserError, match="every pixel of"):
        load(rest)
