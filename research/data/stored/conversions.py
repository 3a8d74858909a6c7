"""Converts original archives to examples without TensorFlow, which TFDS's own builders need.

A conversion keeps keys, values and class names of the TFDS builder, so that the prepared files
serve every reader of TFDS, in the same order.
"""

import functools
import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import defusedxml.ElementTree
import numpy as np

from research.data.stored.encoding import Keyed, png

Files = dict[str, Path]  # archives by the file name that TFDS registers


class Conversion(NamedTuple):
    """The conversion of a data set's archives.

    Attributes:
      content: of the data set, in a few words.
      splits: (the TFDS builder, archives) -> {split: keyed examples}.
      builder: () -> the class that describes a data set that TFDS does not have.
      archives: the builder's configuration -> names of the archives it needs; None: all.
    """

    content: str
    splits: Callable[[Any, Files], dict[str, Keyed]]
    builder: Callable[[], type] | None = None
    archives: Callable[[Any], Iterable[str]] | None = None


def read_idx(packed: bytes) -> np.ndarray:
    """Reads the array in a gzipped IDX file of bytes: http://yann.lecun.com/exdb/mnist/ ."""
    data = gzip.decompress(packed)
    shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def _idx_examples(images: bytes, labels: bytes) -> Keyed:
    pairs = zip(read_idx(images), read_idx(labels).tolist(), strict=True)
    for index, (image, label) in enumerate(pairs):
        yield index, {"image": png(image[:, :, None]), "label": label}


def mnist_splits(builder: Any, files: Files) -> dict[str, Keyed]:
    """Reads MNIST and the sets published in its form."""
    return {
        split: _idx_examples(
            files[f"{prefix}-images-idx3-ubyte.gz"].read_bytes(),
            files[f"{prefix}-labels-idx1-ubyte.gz"].read_bytes(),
        )
        for split, prefix in (("train", "train"), ("test", "t10k"))
    }


def emnist_splits(builder: Any, files: Files) -> dict[str, Keyed]:
    """Reads EMNIST, whose pictures stay transposed, as NIST and TFDS have them."""
    config = builder.builder_config.name
    with zipfile.ZipFile(files["gzip.zip"]) as archive:
        return {
            split: _idx_examples(
                archive.read(f"gzip/emnist-{config}-{split}-images-idx3-ubyte.gz"),
                archive.read(f"gzip/emnist-{config}-{split}-labels-idx1-ubyte.gz"),
            )
            for split in ("train", "test")
        }


def cifar_splits(
    builder: Any, files: Files, archive: str, label_files: dict[str, str], splits: dict[str, list]
) -> dict[str, Keyed]:
    """Reads CIFAR's binary form: the labels, one byte each, then 3x32x32 values, channel first."""
    contents = {}
    with tarfile.open(files[archive]) as packed:
        for member in packed:
            if (file := packed.extractfile(member)) is not None:
                contents[Path(member.name).name] = file.read()
    for key, name in label_files.items():
        builder.info.features[key].names = contents[name].decode().split()

    def examples(split: str, names: Iterable[str]) -> Keyed:
        data = np.frombuffer(b"".join(contents[name] for name in names), np.uint8)
        for index, row in enumerate(data.reshape(-1, len(label_files) + 3 * 32 * 32)):
            labels, values = row[: len(label_files)], row[len(label_files) :]
            image = np.ascontiguousarray(values.reshape(3, 32, 32).transpose(1, 2, 0))
            example = dict(zip(label_files, labels.tolist(), strict=True))
            yield index, example | {"id": f"{split}_{index:05d}", "image": png(image)}

    return {split: examples(split, names) for split, names in splits.items()}


def omniglot_splits(builder: Any, files: Files) -> dict[str, Keyed]:
    """Reads TFDS's omniglot, or the small one."""
    from research.data.stored import omniglot

    small = isinstance(builder, omniglot.OmniglotSmall)
    return (omniglot.small_splits if small else omniglot.full_splits)(builder, files)


def omniglot_small() -> type:
    """Returns the builder of omniglot_small."""
    from research.data.stored.omniglot import OmniglotSmall

    return OmniglotSmall


def voc_splits(builder: Any, files: Files) -> dict[str, Keyed]:
    """Reads Pascal VOC: an archive of train and val, and one of test, not annotated in 2012."""
    config = builder.builder_config
    archives = {"train": "trainval", "validation": "trainval", "test": "test"}
    lists = {"train": "train", "validation": "val", "test": "test"}

    def examples(split: str) -> Keyed:
        annotated = config.has_test_annotations or split != "test"
        with tarfile.open(files[config.filenames[archives[split]]]) as archive:

            def read(path: str) -> bytes:
                file = archive.extractfile(f"VOCdevkit/VOC{config.year}/{path}")
                assert file is not None
                return file.read()

            for line in read(f"ImageSets/Main/{lists[split]}.txt").decode().splitlines():
                name = line.strip()
                objects = _voc_objects(read(f"Annotations/{name}.xml")) if annotated else []
                plain = [each for each in objects if not each["is_difficult"]]
                yield (
                    name,
                    {
                        "image": io.BytesIO(read(f"JPEGImages/{name}.jpg")),
                        "image/filename": f"{name}.jpg",
                        "objects": objects,
                        "labels": sorted({each["label"] for each in objects}),
                        "labels_no_difficult": sorted({each["label"] for each in plain}),
                    },
                )

    return {split: examples(split) for split in lists}


def _voc_objects(content: bytes) -> list[dict[str, Any]]:
    from tensorflow_datasets.core.features import BBox

    tree = defusedxml.ElementTree.fromstring(content)
    text = lambda element, path: (element.findtext(path) or "").strip().lower()
    width, height = (float(text(tree, f"size/{side}")) for side in ("width", "height"))
    return [
        {
            "label": text(found, "name"),
            "pose": text(found, "pose"),
            "bbox": BBox(
                ymin=float(text(found, "bndbox/ymin")) / height,
                xmin=float(text(found, "bndbox/xmin")) / width,
                ymax=float(text(found, "bndbox/ymax")) / height,
                xmax=float(text(found, "bndbox/xmax")) / width,
            ),
            "is_truncated": text(found, "truncated") == "1",
            "is_difficult": text(found, "difficult") == "1",
        }
        for found in tree.findall("object")
    ]


CONVERSIONS = {
    "mnist": Conversion("70,000 handwritten digits, 28x28x1", mnist_splits),
    "fashion_mnist": Conversion("70,000 articles of clothing in 10 classes, 28x28x1", mnist_splits),
    "kmnist": Conversion("70,000 Japanese characters in 10 classes, 28x28x1", mnist_splits),
    "emnist": Conversion(
        "up to 814,255 letters and digits, 28x28x1: emnist/balanced, byclass, bymerge, digits, "
        "letters or mnist",
        emnist_splits,
    ),
    "cifar10": Conversion(
        "60,000 photographs in 10 classes, 32x32x3",
        functools.partial(
            cifar_splits,
            archive="cifar-10-binary.tar.gz",
            label_files={"label": "batches.meta.txt"},
            splits={
                "train": [f"data_batch_{i}.bin" for i in range(1, 6)],
                "test": ["test_batch.bin"],
            },
        ),
    ),
    "cifar100": Conversion(
        "60,000 photographs in 100 classes, 32x32x3",
        functools.partial(
            cifar_splits,
            archive="cifar-100-binary.tar.gz",
            label_files={
                "coarse_label": "coarse_label_names.txt",
                "label": "fine_label_names.txt",
            },
            splits={"train": ["train.bin"], "test": ["test.bin"]},
        ),
    ),
    "omniglot": Conversion("32,460 drawings of 1,623 characters, 105x105x3", omniglot_splits),
    "omniglot_small": Conversion(
        "242 characters of 8 alphabets, train and test apart; 20 one-shot runs; 105x105x1",
        omniglot_splits,
        omniglot_small,
    ),
    "voc": Conversion(
        "photographs with boxes of 20 classes: voc/2007 (9,963) or voc/2012 (11,540)",
        voc_splits,
        archives=lambda config: config.filenames.values(),
    ),
}
