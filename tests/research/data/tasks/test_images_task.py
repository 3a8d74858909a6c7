"""Images alone: which of a person's files are read, into which split, what is said of others."""

import io
import types

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from research.data.tasks import images
from research.errors import UserError


def write(folder, *names, shades=None):
    """Small images; one shade each, so that they can be told apart."""
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shade = k if shades is None else shades[k]
        PIL.Image.new("RGB", (4, 3), (shade, shade, shade)).save(folder / name)


def shades(examples):
    return [int(examples[i]["image"][0, 0, 0]) for i in range(len(examples))]


def test_the_middle_one_of_each_five_in_natural_order_is_the_test_split(tmp_path, capsys):
    write(tmp_path, *(f"{'ab'[k > 5]}/{k + 5}.png" for k in range(10)))  # 10 comes after 9
    (tmp_path / "notes.txt").write_text("not a picture")
    data = images.load(tmp_path)
    assert shades(data.splits["test"]) == [2, 7]
    assert shades(data.splits["train"]) == [0, 1, 3, 4, 5, 6, 8, 9]
    assert data.splits["train"][0]["image"].shape == (3, 4, 3)
    said = " ".join(capsys.readouterr().out.split())
    assert "images: 10 found, 10 used" in said, said
    assert "10 found" in data.citation and "a fifth" in data.citation and data.class_names == ()


def test_folders_of_splits_are_taken_as_they_are(tmp_path):
    write(tmp_path, "Train/x/0.png", "Train/1.png", "test/2.png", "valid/3.png")
    data = images.load(tmp_path)
    found = {split: sorted(shades(examples)) for split, examples in data.splits.items()}
    assert found == {"train": [0, 1], "test": [2], "validation": [3]}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "holds no images"),
        (("train/0.png", "test/notes.txt"), "test: holds no images"),
        (("test/0.png", "test/1.png"), "holds test/ but no train/"),
        (("train/0.png", "1.png"), "1.png lies beside train/, in no split"),
        (("train/0.png", "test/1.png", "more/deep/2.png"), "more/deep/2.png lies beside test/ and"),
        (("train/0.png", "val/1.png", "valid/2.png"), "val/ and valid/ are the same split"),
    ],
)
def test_nothing_is_left_out_in_silence(tmp_path, names, said):
    write(tmp_path, *(name for name in names if name.endswith(".png")))
    for name in names:
        if name.endswith(".txt"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_text("a note")
    with pytest.raises(UserError) as error:
        images.load(tmp_path)
    assert said in str(error.value)


def test_a_file_that_cannot_be_read_stops_or_is_counted(tmp_path, capsys):
    write(tmp_path, *(f"{k}.png" for k in range(6)))
    whole = (tmp_path / "4.png").read_bytes()
    (tmp_path / "4.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"4\.png.*--skip_corrupt"):
        images.load(tmp_path)
    data = images.load(tmp_path, skip_corrupt=True)
    assert sorted(shades(data.splits["train"]) + shades(data.splits["test"])) == [0, 1, 2, 3, 5]
    assert "6 found, 5 used, 1 left out (unreadable: 1)" in data.citation
    assert "4.png" in capsys.readouterr().out


def test_inspect_names_what_has_become_unreadable(tmp_path):
    write(tmp_path, *(f"{k}.png" for k in range(6)))
    data = images.load(tmp_path)
    assert images.inspect(data) == []
    (tmp_path / "2.png").write_bytes(b"no image")
    (line,) = images.inspect(data)
    assert "2.png" in line and line.startswith(f"{data.name}, train: ")


def test_images_of_12_bits_in_16_are_all_made_brighter_by_one_factor(tmp_path):
    for k, value in enumerate((4095, 2048, 0)):
        PIL.Image.fromarray(np.full((3, 4), value, np.uint16)).save(tmp_path / f"{k}.png")
    data = images.load(tmp_path)
    assert sorted(shades(data.splits["train"]) + shades(data.splits["test"])) == [0, 128, 255]
    assert data.white == 4095


def test_the_image_of_a_prepared_set():
    """Its feature "image", or the only one of this kind; none where two could be meant."""
    image = tfds.features.Image(shape=(None, None, 3))
    label = tfds.features.ClassLabel(num_classes=3)

    def find(**features):
        return images.find_images(types.SimpleNamespace(features=features))

    assert find(label=label) is None
    assert find(left=image, right=image) is None
    assert find(image=image, mask=image, label=label).record.key == "image"
    stored = find(photo=image, label=label)
    assert stored.image_shape == (None, None, 3) and stored.class_names == ()

    data = io.BytesIO()
    PIL.Image.new("L", (4, 3), 9).save(data, "PNG")
    held = types.SimpleNamespace(bytes_list=types.SimpleNamespace(value=[data.getvalue()]))
    read = stored.record.example({"photo": held}, "here")["image"]
    assert read.shape == (3, 4, 3) and (read == 9).all()
    assert stored.record.label({}) == 0
