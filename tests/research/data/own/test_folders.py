import cv2
import numpy as np
import pytest

from research.data import datasets
from research.data.files import natural
from research.data.own import folders
from research.data.tasks import classification
from research.errors import UserError


def draw(path, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((4, 6, 3), value, np.uint8))


@pytest.fixture
def root(tmp_path):
    """10 pictures of each of 3 classes."""
    for i, name in enumerate(["cat", "dog", "emu"]):
        for k in range(10):
            draw(tmp_path / name / f"{k}.png", 20 * i + k)
    return tmp_path


def test_classes_sort_naturally(tmp_path):
    # As strings, 10 comes before 2, and a model trained elsewhere then names the wrong class.
    for name in ("10", "2", "1", "b", "A", "x10y", "x9y"):
        draw(tmp_path / name / "a.png")
        draw(tmp_path / name / "b.png")
    assert folders.load(tmp_path).class_names == ("1", "2", "10", "A", "b", "x9y", "x10y")
    assert sorted(["img12.png", "img2.png", "img012.png"], key=natural)[0] == "img2.png"


def test_one_folder_a_class(root):
    dataset = datasets.load(f"folder:{root}", "nowhere")
    assert dataset.class_names == ("cat", "dog", "emu")
    train, test = dataset.splits["train"], dataset.splits["test"]
    assert len(train) == 24 and len(test) == 6
    assert np.bincount(test.labels).tolist() == [2, 2, 2]
    assert "fifth of each class" in dataset.citation
    shown = {int(s[i]["image"][0, 0, 0]) for s in (train, test) for i in range(len(s))}
    assert shown == {20 * i + k for i in range(3) for k in range(10)}
    for i in range(len(test)):
        example = test[i]
        assert example["image"][0, 0, 0] // 20 == example["label"] == test.labels[i]
        assert example["label"].dtype == np.int32 and example["image"].shape == (4, 6, 3)


def test_the_split_does_not_depend_on_how_the_disk_lists_files(root):
    test = datasets.load(f"folder:{root}", "nowhere").splits["test"]
    assert [int(test[i]["image"][0, 0, 0]) for i in range(6)] == [2, 7, 22, 27, 42, 47]


@pytest.mark.parametrize("name", ["test", "val", "validation"])
def test_split_folders(tmp_path, name):
    for split, count in (("train", 3), (name, 2)):
        for label in ("a", "b"):
            for k in range(count):
                draw(tmp_path / split / label / f"{k}.jpg")
    dataset = folders.load(tmp_path)
    expected = {"train": 6, "test" if name == "test" else "validation": 4}
    assert {split: len(part) for split, part in dataset.splits.items()} == expected
    assert dataset.class_names == ("a", "b")


def test_a_class_may_be_called_train(tmp_path):
    for label in ("car", "train"):
        draw(tmp_path / label / "0.png")
        draw(tmp_path / label / "1.png")
    assert folders.load(tmp_path).class_names == ("car", "train")


def test_one_image_a_class_leaves_none_for_the_test(tmp_path):
    for label in ("cat", "dog"):
        draw(tmp_path / label / "0.png")
    with pytest.raises(UserError, match=r"folder:.*two images at least"):
        folders.load(tmp_path)


def test_hidden_and_system_files_are_passed_over(root):
    for name in ("cat/.DS_Store", "cat/Thumbs.db", ".git/config", "_notes/a.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    assert folders.load(root).class_names == ("cat", "dog", "emu")


def refuses(path, message, **options):
    with pytest.raises(UserError, match=message) as caught:
        folders.load(path, **options)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named(tmp_path, root):
    refuses(tmp_path / "nix", "nix: no such folder")
    (tmp_path / "empty").mkdir()
    refuses(tmp_path / "empty", "empty holds no subfolders")
    draw(tmp_path / "one" / "cat" / "0.png")
    refuses(tmp_path / "one", "one class only, 'cat'")
    for name in ("a", "b"):
        (tmp_path / "bare" / name).mkdir(parents=True)
    refuses(tmp_path / "bare", "bare: holds no images")
    draw(tmp_path / "late" / "test" / "a" / "0.png")
    refuses(tmp_path / "late", "holds test/ but no train folder")


def test_a_class_of_test_that_is_not_in_train_is_named(tmp_path):
    for name in ("train/cat", "train/dog", "test/cat", "test/dgo"):
        draw(tmp_path / name / "0.png")
    refuses(tmp_path, "'dgo' is not in .*train, which has cat, dog")


def test_a_folder_beside_the_splits_is_named(tmp_path):
    for name in ("train/cat", "train/dog", "test/cat", "extra/cat"):
        draw(tmp_path / name / "0.png")
    refuses(tmp_path, "'extra', which is neither a split")


@pytest.mark.parametrize("name", ["notes.txt", "broken.png"])
def test_a_file_that_is_no_image_is_named_or_left_out(root, name, capsys):
    (root / "dog" / name).write_text("no image")
    refuses(root, rf"dog/{name}: is damaged, or no image \(--skip_corrupt")
    dataset = folders.load(root, skip_corrupt=True)
    assert sum(len(part) for part in dataset.splits.values()) == 30
    assert "images: 31 found, 30 used, 1 left out (unreadable: 1)" in dataset.citation
    assert name in capsys.readouterr().out


def test_nothing_readable_is_an_error(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_text("no image")
    refuses(tmp_path, "none of the 2 files can be read", skip_corrupt=True)


def test_inspection_names_empty_and_missing_classes(tmp_path):
    for name in ("train/cat", "train/dog", "train/emu", "test/cat", "test/emu"):
        draw(tmp_path / name / "0.png")
    (tmp_path / "train" / "emu" / "0.png").unlink()
    dataset = folders.load(tmp_path)
    problems = classification.inspect(dataset)
    assert len(problems) == 3
    for message in (
        "train: class 'emu' is empty",
        "test: class 'emu' is not in train",
        "test: class 'dog' is empty",
    ):
        assert any(problem.endswith(message) for problem in problems)


def test_inspection_reads_every_file(root):
    dataset = folders.load(root)
    (root / "cat" / "3.png").write_bytes(b"gone bad since")
    (problem,) = classification.inspect(dataset)
    assert "cat/3.png: is damaged, or no image" in problem


def test_hidden_folders_in_classes_are_no_examples(root, capsys):
    for k in range(7):
        draw(root / "cat" / ".ipynb_checkpoints" / f"{k}-checkpoint.png", k)
    draw(root / "__MACOSX" / "cat" / "._0.png")
    dataset = folders.load(root)
    assert dataset.class_names == ("cat", "dog", "emu")
    assert sum(map(len, dataset.splits.values())) == 30
    counts = "images: 37 found, 30 used, 7 left out (hidden or of the system: 7)"
    assert counts in dataset.citation and counts in capsys.readouterr().out


def test_classes_may_begin_with_an_underscore(root):
    draw(root / "_none" / "0.png")
    draw(root / "_none" / "1.png")
    (root / "_notes").mkdir()
    assert folders.load(root).class_names == ("_none", "cat", "dog", "emu")


def test_linked_folders_are_entered(root, tmp_path_factory):
    far = tmp_path_factory.mktemp("far")
    for k in range(6):
        draw(far / f"more{k}.png", 200 + k)
    (root / "dog" / "more").symlink_to(far)
    (root / "fox").symlink_to(far)
    (root / "dog" / "gone.png").symlink_to(far / "gone.png")
    dataset = folders.load(root)
    labels = np.concatenate([part.labels for part in dataset.splits.values()])
    assert np.bincount(labels).tolist() == [10, 16, 10, 6]
    assert "1 left out (links to what is not there: 1)" in dataset.citation


def test_pictures_beside_the_classes_are_counted(root):
    draw(root / "cover.png")
    assert "31 found, 30 used, 1 left out (in no folder of a class: 1)" in (
        folders.load(root).citation
    )


def test_one_name_written_in_two_ways_is_one_class(tmp_path):
    # macOS writes an accent beside its letter (NFD), other systems in it (NFC).
    for name in ("train/bébé", "train/chat", "test/be\u0301be\u0301", "test/chat"):
        draw(tmp_path / name / "0.png")
    dataset = folders.load(tmp_path)
    assert dataset.class_names == ("bébé", "chat")
    assert dataset.splits["test"].labels.tolist() == [0, 1]


def test_folders_of_archives(tmp_path):
    # Kaggle's chest-xray-pneumonia unpacks into a folder of its own name, and macOS adds another.
    for name in ("train/NORMAL", "train/PNEUMONIA", "val/NORMAL", "test/PNEUMONIA"):
        draw(tmp_path / "chest_xray" / name / "0.jpeg")
    draw(tmp_path / "__MACOSX" / "chest_xray" / "train" / "NORMAL" / "._0.jpeg")
    dataset = folders.load(tmp_path)
    assert dataset.class_names == ("NORMAL", "PNEUMONIA")
    assert {split: len(part) for split, part in dataset.splits.items()} == {
        "train": 2,
        "validation": 1,
        "test": 1,
    }
    # Intel image classification: seg_train/seg_train/CLASS beside seg_test.
    for name in ("seg_train/seg_train/sea", "seg_test/seg_test/sea"):
        draw(tmp_path / "intel" / name / "0.jpg")
    refuses(tmp_path / "intel", "seg_test/ and seg_train/ look like splits, not classes; call them")
