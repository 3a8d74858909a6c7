"""Each set made from archives of its published format is what TFDS itself reads."""

import hashlib

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from archives import RNG, by_tfds, mnist_like, registers, tarred, write, zipped
from tensorflow_datasets.core.download.checksums import UrlInfo

from research.data import datasets
from research.data.stored.preparation import prepare
from research.data.tasks import detection
from research.errors import UserError


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_mnist_and_its_kin(tmp_path, monkeypatch, name):
    archives, images, labels = mnist_like()
    registers(monkeypatch, name, archives)
    folder = prepare(name, tmp_path / "data", write(tmp_path / "archives", archives))
    version = str(tfds.builder_cls(name).VERSION)
    assert folder == tmp_path / "data" / name / version
    for split, stem in (("train", "train"), ("test", "t10k")):
        found = by_tfds(name, tmp_path / "data", split)
        assert len(found) == len(images[stem])
        for image, label in zip(images[stem].astype(np.uint8), labels[stem], strict=True):
            assert found[image.tobytes()]["label"] == label
    ours = datasets.load(name, tmp_path / "data")
    assert len(ours.splits["train"]) == 12 and len(ours.class_names) == 10
    assert ours.class_names[3] == {"mnist": "3", "fashion_mnist": "Dress", "kmnist": "tsu"}[name]
    one = ours.splits["test"][0]
    assert by_tfds(name, tmp_path / "data", "test")[one["image"].tobytes()]["label"] == one["label"]


def test_emnist(tmp_path, monkeypatch):
    archives, images, labels = mnist_like()
    names = {"train": "train", "t10k": "test"}
    inside = {}
    for name, content in archives.items():
        stem, _, rest = name.partition("-")
        inside[f"gzip/emnist-letters-{names[stem]}-{rest}"] = content
    archives = {"gzip.zip": zipped(inside)}
    registers(monkeypatch, "emnist", archives)
    source = write(tmp_path / "archives", archives)
    with pytest.raises(UserError, match="emnist: say which, emnist/CONFIG with one of byclass"):
        prepare("emnist", tmp_path / "data", source)
    prepare("emnist/letters", tmp_path / "data", source)
    found = by_tfds("emnist/letters", tmp_path / "data", "test")
    for image, label in zip(images["t10k"].astype(np.uint8), labels["t10k"], strict=True):
        assert found[image.tobytes()]["label"] == label
    # The only configuration that lies prepared needs no naming, and is named.
    assert datasets.load("emnist", tmp_path / "data").name == "emnist/letters"


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar(tmp_path, monkeypatch, name):
    keys = ["label"] if name == "cifar10" else ["coarse_label", "label"]
    classes = {"label": 10 if name == "cifar10" else 100, "coarse_label": 20}
    images = RNG.integers(0, 256, (12, 3, 32, 32)).astype(np.uint8)
    labels = np.stack([RNG.integers(0, classes[key], 12) for key in keys], 1).astype(np.uint8)
    rows = np.concatenate([labels, images.reshape(12, -1)], 1)
    words = lambda n, stem: "\n".join(f"{stem}{i}" for i in range(n)).encode() + b"\n\n"
    if name == "cifar10":
        files = {f"data_batch_{i + 1}.bin": rows[2 * i : 2 * i + 2].tobytes() for i in range(5)}
        files |= {"test_batch.bin": rows[10:].tobytes(), "batches.meta.txt": words(10, "thing")}
    else:
        files = {"train.bin": rows[:10].tobytes(), "test.bin": rows[10:].tobytes()}
        files |= {"fine_label_names.txt": words(100, "thing")}
        files |= {"coarse_label_names.txt": words(20, "group")}
    folder = "cifar-10-batches-bin" if name == "cifar10" else "cifar-100-binary"
    archive = "cifar-10-binary.tar.gz" if name == "cifar10" else "cifar-100-binary.tar.gz"
    archives = {archive: tarred({f"{folder}/{k}": v for k, v in files.items()})}
    registers(monkeypatch, name, archives)
    prepare(name, tmp_path / "data", write(tmp_path / "archives", archives))
    for split, part in (("train", slice(0, 10)), ("test", slice(10, 12))):
        found = by_tfds(name, tmp_path / "data", split)
        for number, (image, row) in enumerate(zip(images[part], labels[part], strict=True)):
            example = found[np.ascontiguousarray(image.transpose(1, 2, 0)).tobytes()]
            assert [example[key] for key in keys] == row.tolist()
            assert example["id"] == f"{split}_{number:05d}".encode()
    ours = datasets.load(name, tmp_path / "data")
    assert ours.class_names[3] == "thing3" and ours.image_shape == (32, 32, 3)


def test_omniglot_small_holds_unseen_alphabets_and_the_published_runs(tmp_path, monkeypatch):
    from research.data.stored.omniglot import OmniglotSmall
    from research.data.tasks import embedding

    def drawing(value):
        return cv2.imencode(".png", np.full((105, 105), 255 - value, np.uint8))[1].tobytes()

    def archive(folder, alphabets):
        return {
            f"{folder}/{alphabet}/character{k:02d}/{k:04d}_{drawer:02d}.png": drawing(drawer)
            for alphabet, characters in alphabets.items()
            for k in range(1, characters + 1)
            for drawer in (1, 2, 3)
        }

    runs = {}
    for run in range(1, 21):
        lines = []
        for k in range(1, 21):
            support, query = (
                f"run{run:02d}/{x}{k:02d}.png" for x in ("training/class", "test/item")
            )
            # As published: queries are in another order than the supports.
            other = f"run{run:02d}/training/class{k % 20 + 1:02d}.png"
            lines.append(f"{query} {other}")
            runs |= {support: drawing(k), query: drawing(k % 20 + 1)}
        runs[f"run{run:02d}/class_labels.txt"] = "\n".join(lines) + "\n"
    archives = {
        "images_background_small1.zip": zipped(archive("small1", {"Greek": 2, "Latin": 3})),
        "images_background_small2.zip": zipped(archive("small2", {"Latin": 3, "Tagalog": 2})),
        "all_runs.zip": zipped(runs),
    }
    infos = {
        url: UrlInfo(
            tfds.core.utils.Size(1),
            hashlib.sha256(archives[info.filename]).hexdigest(),
            info.filename,
        )
        for url, info in OmniglotSmall.url_infos.items()
    }
    monkeypatch.setattr(OmniglotSmall, "url_infos", infos)
    prepare("omniglot_small", tmp_path / "data", write(tmp_path / "archives", archives))
    found = datasets.load("omniglot_small", tmp_path / "data", embedding.TASK)
    splits = embedding.by_class(found)
    names = {k: {found.class_names[i] for i in v.labels} for k, v in splits.items()}
    assert names["train"] == {"Greek_0", "Greek_1", "Latin_0", "Latin_1", "Latin_2"}
    assert names["test"] == {"Tagalog_0", "Tagalog_1"} and len(names["runs"]) == 400
    one = splits["test"][0]
    assert one["image"].shape == (105, 105, 1) and one["image"].max() == one["domain"] in (1, 2, 3)
    rows = [splits["runs"][i] for i in range(len(splits["runs"]))]
    assert len(rows) == 800 and sum(int(row["is_query"]) for row in rows) == 400
    # Whoever drew a picture is on one side of what is drawn, or dealt.
    drawers = [int(found.splits["train"][i]["domain"]) for i in range(len(found.splits["train"]))]
    groups = found.splits["train"].groups
    assert len(set(zip(drawers, groups.tolist(), strict=True))) == len(set(drawers)) > 1
    for row in rows:  # a support and its query are of one class, and of the same ink here
        run, number = found.class_names[row["label"]].removeprefix("run").split("_class")
        assert int(run) == row["run"] and int(number) == row["image"].max()


def test_omniglot(tmp_path, monkeypatch):
    def archive(folder, alphabets):
        files = {f"{folder}/": b""}
        for alphabet, labels in alphabets.items():
            for character, label in enumerate(labels, 1):
                for drawer in (1, 2):
                    image = RNG.integers(0, 2, (105, 105)).astype(np.uint8) * 255
                    name = (
                        f"{folder}/{alphabet}/character{character:02d}/{label:04d}_{drawer:02d}.png"
                    )
                    files[name] = cv2.imencode(".png", image)[1].tobytes()
        return files

    # Characters count through all 50 alphabets; 1,623 of them are in train and test together.
    inside = {
        "images_background": archive("images_background", {"Greek": range(1, 800)}),
        "images_evaluation": archive("images_evaluation", {"Tengwar": range(800, 1624)}),
        "images_background_small1": archive("images_background_small1", {"Greek": range(1, 4)}),
        "images_background_small2": archive("images_background_small2", {"Greek": range(1, 3)}),
    }
    archives = {f"{name}.zip": zipped(files) for name, files in inside.items()}
    registers(monkeypatch, "omniglot", archives)
    stock = tfds.builder_cls("omniglot")
    info = stock._info

    def two_alphabets(self):
        made = info(self)
        made.features["alphabet"]._num_classes = 2  # the made archives hold 2 of the 50
        return made

    monkeypatch.setattr(stock, "_info", two_alphabets)
    prepare("omniglot", tmp_path / "data", write(tmp_path / "archives", archives))
    dataset = datasets.load("omniglot", tmp_path / "data")
    sizes = {split: len(part) for split, part in dataset.splits.items()}
    assert sizes == {"train": 1598, "test": 1648, "small1": 6, "small2": 4}
    assert dataset.class_names[:2] == ("Greek_0", "Greek_1") and len(dataset.class_names) == 1623
    assert dataset.splits["small1"][0]["image"].shape == (105, 105, 3)
    drawings = {
        cv2.cvtColor(
            cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB
        ).tobytes(): int(name.rpartition("/")[2][:4]) - 1
        for name, data in inside["images_background_small1"].items()
        if data
    }
    part = dataset.splits["small1"]
    assert {part[i]["image"].tobytes(): int(part[i]["label"]) for i in range(6)} == drawings


def voc_xml(size, objects):
    """An annotation file as VOC's own; objects are (class, box, difficult)."""
    (width, height), found = size, ""
    for name, (x0, y0, x1, y1), difficult in objects:
        found += (
            f"<object><name>{name}</name><pose>Left</pose><truncated>1</truncated>"
            f"<difficult>{difficult}</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
            f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        )
    return (
        f"<annotation><size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        f"{found}</annotation>"
    ).encode()


@pytest.mark.parametrize("year", ["2007", "2012"])
def test_voc(tmp_path, monkeypatch, year):
    image = np.full((20, 40, 3), 77, np.uint8)
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    full = voc_xml((40, 20), [("dog", (4, 5, 20, 15), 0), ("cat", (1, 1, 30, 20), 1)])
    files = {f"JPEGImages/{name}.jpg": jpeg for name in ("000001", "000002", "000003")}
    files |= {"Annotations/000001.xml": full, "Annotations/000002.xml": voc_xml((40, 20), [])}
    lists = {"train": "000001\n", "val": "000002\n", "test": "000003\n"}
    files |= {f"ImageSets/Main/{split}.txt": text.encode() for split, text in lists.items()}
    if year == "2007":  # the test set of 2012 is not annotated
        files["Annotations/000003.xml"] = full
    archive = tarred({f"VOCdevkit/VOC{year}/{path}": content for path, content in files.items()})
    stock = tfds.builder_cls("voc")
    (config,) = (each for each in stock.BUILDER_CONFIGS if each.name == year)
    everything = {url.rpartition("/")[2]: archive for url in stock.url_infos}
    registers(monkeypatch, "voc", everything)
    # The archives of the other year are not asked for.
    mine = dict.fromkeys(config.filenames.values(), archive)
    assert len(everything) == 4 and len(mine) == 2
    prepare(f"voc/{year}", tmp_path / "data", write(tmp_path / "archives", mine))
    source = tfds.builder(f"voc/{year}", data_dir=tmp_path / "data")
    assert type(source).__module__.startswith("tensorflow_datasets.object_detection")
    (train,) = source.as_data_source("train")
    assert train["image/filename"] == b"000001.jpg" and train["image"].shape == (20, 40, 3)
    np.testing.assert_allclose(
        train["objects"]["bbox"], [[0.25, 0.1, 0.75, 0.5], [0.05, 0.025, 1.0, 0.75]]
    )
    names = source.info.features["objects"]["label"].int2str
    assert [names(int(k)) for k in train["objects"]["label"]] == ["dog", "cat"]
    assert [names(int(k)) for k in train["labels"]] == ["cat", "dog"]
    assert [names(int(k)) for k in train["labels_no_difficult"]] == ["dog"]
    assert np.asarray(train["objects"]["is_difficult"]).tolist() == [False, True]
    ours = datasets.load("voc", tmp_path / "data", detection.TASK)
    assert ours.name == f"voc/{year}" and len(ours.class_names) == 20
    example = ours.splits["train"][0]
    np.testing.assert_allclose(example["boxes"], [[4, 5, 20, 15], [1, 1, 30, 20]], atol=1e-4)
    assert example["crowd"].tolist() == [False, True]
    assert len(ours.splits["test"][0]["classes"]) == (2 if year == "2007" else 0)
    assert len(ours.splits["validation"][0]["classes"]) == 0
