import csv
import gzip
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from research.data import datasets
from research.data.images.preprocessing import Mapped, Preprocessing
from research.data.sources.examples import Arrays, decode, read_many
from research.data.sources.source import Source
from research.data.sources.splits import Dataset, hold_out
from research.data.stored.builtin import digits
from research.data.stored.sets import install, installed
from research.data.tasks import classification
from research.errors import UserError


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    datasets.load("digits", folder)
    return folder


def test_digits_are_what_the_package_ships(data_dir):
    dataset = datasets.load("digits", data_dir)
    assert dataset.class_names == tuple("0123456789") and dataset.image_shape == (28, 28, 1)
    assert "LeCun" in dataset.citation and "CC BY-SA" in dataset.citation
    train, test = dataset.splits["train"], dataset.splits["test"]
    assert len(train) == 4000 and len(test) == 1000
    assert np.bincount(test.labels).tolist() == [100] * 10
    with gzip.open(digits.digits_file(), "rt") as file:
        rows = [bytes(map(int, row)) for row in csv.reader(file)]
    shipped = {row[:-1]: row[-1] for row in rows}
    seen = {}
    for part in (train, test):
        fields = decode(part).fields
        assert fields["image"].dtype == np.uint8 and fields["label"].dtype == np.int32
        images = [image.tobytes() for image in fields["image"]]
        seen |= dict(zip(images, fields["label"].tolist(), strict=True))
    assert seen == shipped
    # The rule of the split: of each five of a class in the file, the middle one.
    assert set(images) == {row[:-1] for i, row in enumerate(rows) if i % 5 == 2}


def test_exclusive_or_is_its_truth_table(data_dir):
    dataset = datasets.load("xor", data_dir)
    assert dataset.class_names == ("same", "different") and dataset.image_shape == (1, 2, 1)
    for split in dataset.splits.values():
        fields = decode(split).fields
        pixels = fields["image"].reshape(4, 2) // 255
        assert sorted(map(tuple, pixels.tolist())) == [(0, 0), (0, 1), (1, 0), (1, 1)]
        np.testing.assert_array_equal(fields["label"], pixels[:, 0] ^ pixels[:, 1])


def test_prepared_splits_travel_to_workers(data_dir):
    split = datasets.load("digits", data_dir).splits["test"]
    copy = pickle.loads(pickle.dumps(split))
    np.testing.assert_array_equal(copy[7]["image"], split[7]["image"])
    assert len(pickle.dumps(Mapped(split, Preprocessing((32, 32), 1)))) < 10_000


def test_cached_and_decoded_batches_of_digits_agree(data_dir):
    mapped = Mapped(datasets.load("digits", data_dir).splits["test"], Preprocessing((32, 32), 1))
    cached, decoded = Source(mapped, 64, seed=1), Source(mapped, 64, seed=1, cache_bytes=0)
    for name, values in cached.batch(5).items():
        np.testing.assert_array_equal(values, decoded.batch(5)[name])
    assert cached.memory is not None and decoded.memory is None


def test_reading_together_is_reading_one_by_one(data_dir):
    _, held = hold_out(datasets.load("digits", data_dir).splits["test"], 0.1)
    mapped = Mapped(held, Preprocessing((32, 32), 1))
    wanted = [7, 0, 99, 7]
    for together, index in zip(read_many(mapped, wanted), wanted, strict=True):
        alone = mapped[index]
        np.testing.assert_array_equal(together["image"], alone["image"])
        assert together["label"] == alone["label"] == held.labels[index]


class EmptySet:
    """Stands for a TFDS builder."""

    def __init__(self, data_dir):
        self.data_dir = Path(data_dir) / "toy" / "1.0.0"

    def download_and_prepare(self):
        self.data_dir.mkdir(parents=True)
        (self.data_dir / "features.json").write_text("{}")


HANGS = """
import sys, time
from research.data.stored.sets import install

install(lambda folder: (print("begun", flush=True), time.sleep(100)), sys.argv[1])
"""


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_makes_is_not(tmp_path):
    repository = Path(datasets.__file__).parents[2]
    killed = subprocess.Popen(
        [sys.executable, "-c", HANGS, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(repository)},
        text=True,
    )
    assert killed.stdout.readline() == "begun\n"
    [left] = tmp_path.glob(".preparing_*")
    install(EmptySet, tmp_path)  # while the other lives
    assert left.exists()
    killed.kill()
    killed.communicate()
    assert left.exists()
    shutil.rmtree(tmp_path / "toy")
    install(EmptySet, tmp_path)
    assert not list(tmp_path.glob(".preparing_*"))
    assert set(installed(tmp_path)) == {"toy"}


def test_two_processes_prepare_at_once(tmp_path):
    command = (
        "import sys; from research.data import datasets; "
        "print(len(datasets.load('digits', sys.argv[1]).splits['train']))"
    )
    repository = Path(datasets.__file__).parents[2]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(repository)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", command, str(tmp_path / "new")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for _ in range(2)
    ]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.split()[-1] == "4000"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["digits"]  # no leftovers


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "digit: is unknown. Did you mean 'digits'"),
        ("cifar100n", "Did you mean 'cifar100"),
        ("cifar10", "--mode=prepare --dataset=cifar10 --data_dir=.* --allow_download"),
        ("imagenet2012", "--mode=prepare --dataset=imagenet2012"),
        ("/", "write --dataset=folder:/"),
    ],
)
def test_unknown_names_are_met_with_the_nearest(data_dir, name, message):
    with pytest.raises(UserError, match=message) as caught:
        datasets.load(name, data_dir)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--data_dir=.*file: cannot be written"):
        datasets.load("digits", tmp_path / "file")


@pytest.mark.parametrize("damage", ["cut", "overwritten", "gone"])
def test_damaged_prepared_files_are_named(data_dir, tmp_path, damage):
    shutil.copytree(data_dir / "digits", tmp_path / "digits")
    (file,) = (tmp_path / "digits" / "1.0.0").glob("*-test.array_record*")
    if damage == "cut":
        os.truncate(file, 100_000)
    elif damage == "overwritten":
        data = bytearray(file.read_bytes())
        data[70_000:70_012] = b"XXXXXXXXXXXX"
        file.write_bytes(data)
    else:
        file.unlink()
    with pytest.raises(UserError, match=rf"is damaged \({file.name} .*prepare the set anew"):
        datasets.load("digits", tmp_path)
    (file.parent / "checksums.json").unlink()  # as in sets of earlier versions
    dataset = datasets.load("digits", tmp_path)
    dataset = dataset._replace(splits={"test": dataset.splits["test"]})
    with pytest.raises(UserError, match=r"digits/1\.0\.0: example \d+ of test cannot be read"):
        decode(dataset.splits["test"])
    (problem,) = classification.inspect(dataset)
    assert problem.startswith("digits, test: ") and "prepare the set anew" in problem


def test_listing(data_dir):
    rows = {name: (state, content) for name, state, content in datasets.known(data_dir)}
    assert rows["digits"][0] == "built in" and "5,000" in rows["digits"][1]
    assert rows["mnist"][0] == "--mode=prepare --dataset=mnist"
    assert "folder:PATH" in rows
    assert all(text and "\n" not in text for row in rows.items() for text in (row[0], *row[1]))


def test_the_highest_version_is_taken(tmp_path):
    for version in ("1.9.0", "1.10.0"):
        folder = tmp_path / "toy" / version
        folder.mkdir(parents=True)
        (folder / "features.json").write_text("{}")
    (tmp_path / ".preparing_x" / "toy" / "2.0.0").mkdir(parents=True)
    (tmp_path / ".preparing_x" / "toy" / "2.0.0" / "features.json").write_text("{}")
    assert installed(tmp_path) == {"toy": tmp_path / "toy" / "1.10.0"}


def test_a_built_in_set_of_an_older_version_is_made_anew_beside_it(tmp_path):
    builder = datasets._builder_class("xor")
    old = tmp_path / "xor" / "0.9.0"
    old.mkdir(parents=True)
    (old / "features.json").write_text("{}")
    assert len(datasets.load("xor", tmp_path).splits["train"])
    whole = tmp_path / "xor" / str(builder.VERSION)
    made = (whole / "features.json").stat().st_mtime_ns
    datasets.load("xor", tmp_path)  # which is then there
    assert (whole / "features.json").stat().st_mtime_ns == made and old.exists()


def test_every_built_in_file_is_one_data_set():
    files = {path.stem for path in Path(digits.__file__).parent.glob("[a-z]*.py")}
    assert set(datasets.builtins()) == files
    assert all(datasets.builtins().values())


class Labels(Arrays):
    @property
    def labels(self):
        return self.fields["label"]


def test_inspection_names_labels_out_of_range():
    def split(*labels):
        image = np.zeros((len(labels), 2, 2, 1), np.uint8)
        return Labels({"image": image, "label": np.array(labels, np.int32)})

    sound = {"train": split(0, 1, 0), "test": split(1, 0)}
    assert classification.inspect(Dataset("toy", sound, ("a", "b"), (2, 2, 1), "")) == []
    broken = {"train": split(0, 1, 2, 2), "test": split(1, 0, -1)}
    assert classification.inspect(Dataset("toy", broken, ("a", "b"), (2, 2, 1), "")) == [
        "toy, train: label 2 of 2 examples is out of range; the labels of 2 classes are 0 to 1",
        "toy, test: label -1 of 1 examples is out of range; the labels of 2 classes are 0 to 1",
    ]


def test_no_tensorflow_is_imported(data_dir):
    assert "tensorflow" not in sys.modules
