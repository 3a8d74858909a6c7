"""TFDS sets on disk: found by name, installed whole or not at all, read without TensorFlow."""

import contextlib
import dataclasses
import errno
import functools
import io
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from research.data.images import decode_image
from research.data.source import Example
from research.data.splits import Dataset
from research.errors import UserError

_MARK = "features.json"  # data_dir/NAME[/CONFIG]/VERSION/features.json: the set is complete
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT} | {
    errno.EEXIST,  # there is a file where the folder should be
    errno.ENOTDIR,
}
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def installed(data_dir: str | Path) -> dict[str, Path]:
    """The sets that lie prepared: {NAME or NAME/CONFIG: folder of its highest version}."""
    root = Path(data_dir)
    marks = [*root.glob(f"[!.]*/*/{_MARK}"), *root.glob(f"[!.]*/*/*/{_MARK}")]
    folders = [mark.parent for mark in marks if _VERSION.fullmatch(mark.parent.name)]
    folders.sort(key=lambda folder: (folder.parent, *map(int, folder.name.split("."))))
    return {folder.parent.relative_to(root).as_posix(): folder for folder in folders}


def install(make: Callable[[str], Any], data_dir: str | Path, **options: Any) -> Path:
    """Prepares a set in a hidden folder of data_dir and renames it into place when it is whole.

    Of several processes that prepare one set at once, the first to end wins and all use its files.

    Args:
      make: gives the TFDS builder for a data_dir.
      options: for the builder's `download_and_prepare`.

    Raises:
      UserError: when data_dir cannot be written.
    """
    root = Path(data_dir)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".preparing_", dir=root) as scratch:
            builder = make(scratch)
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces even no download
                builder.download_and_prepare(**options)
            made = Path(os.fspath(builder.data_dir))
            target = root / made.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                made.rename(target)
            except OSError:
                if not (target / _MARK).exists():
                    raise
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        raise UserError(
            f"--data_dir={root}: cannot be written ({error.strerror}); choose another"
        ) from None
    return target


def open_prepared(name: str, folder: Path) -> Dataset:
    """Opens the classification set in a folder data_dir/NAME[/CONFIG]/VERSION.

    Raises:
      UserError: when its examples are no labelled images, or are stored in a format that only
        TensorFlow reads.
    """
    import tensorflow_datasets as tfds

    info = tfds.builder_from_directory(folder).info
    if info.file_format.value != "array_record":
        raise UserError(
            f"--dataset={name}: {folder} is stored as {info.file_format.value}, which only "
            f"TensorFlow reads; move it away, and --mode=prepare --dataset={name} stores it anew"
        )
    keys = info.supervised_keys or ("image", "label")
    image, label = (dict(info.features).get(key) for key in keys)
    if not isinstance(image, tfds.features.Image) or not isinstance(
        label, tfds.features.ClassLabel
    ):
        raise UserError(
            f"--dataset={name}: is no image-classification set; its examples have "
            f"{', '.join(info.features)}"
        )
    citation = " ".join((info.citation or info.homepage or "").split())
    licence = info.redistribution_info.license if info.redistribution_info else ""
    return Dataset(
        name=name,
        splits={
            split: PreparedSplit(str(folder), split, keys[0], keys[1], image.shape[-1])
            for split in info.splits
        },
        class_names=tuple(label.names),
        image_shape=tuple(image.shape),
        citation=f"{citation} Licence: {licence}" if licence else citation,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedSplit:
    """A split stored as array_record; images are decoded by OpenCV.

    TFDS's general parser takes several times as long as a small image takes to decode; a
    classification record is just encoded bytes and an integer.
    """

    folder: str
    split: str
    image_key: str
    label_key: str
    channels: int | None

    def __getstate__(self) -> dict[str, Any]:
        # Workers open the files themselves.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @functools.cached_property
    def _records(self) -> Any:
        import tensorflow_datasets as tfds

        return tfds.builder_from_directory(self.folder).as_data_source(
            self.split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )

    def _features(self, indices: Sequence[int]) -> list[Any]:
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            records = self._records.__getitems__(list(indices))
        except (RuntimeError, OSError) as error:
            if len(indices) > 1:  # names the first that is damaged
                return [self._features([index])[0] for index in indices]
            raise UserError(
                f"{self.folder}: example {indices[0]} of {self.split} cannot be read "
                f"({str(error).partition(';')[0]}); move the folder away and prepare the set anew"
            ) from None
        return [tf_example_pb2.Example.FromString(record).features.feature for record in records]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int, /) -> Example:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int], /) -> list[Example]:
        pairs = zip(indices, self._features(indices), strict=True)
        return [self._example(index, features) for index, features in pairs]

    def _example(self, index: int, features: Any) -> Example:
        data = features[self.image_key].bytes_list.value[0]
        image = decode_image(data, f"{self.folder}, example {index} of {self.split}")
        if self.channels == 3 and image.shape[2] == 1:
            image = np.repeat(image, 3, axis=2)
        elif self.channels == 1 and image.shape[2] == 3:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None]
        return {"image": image, "label": np.asarray(self._label(features), np.int32)}

    def _label(self, features: Any) -> int:
        return features[self.label_key].int64_list.value[0]

    @functools.cached_property
    def labels(self) -> np.ndarray:
        blocks = (range(i, min(i + 256, len(self))) for i in range(0, len(self), 256))
        found = [self._label(features) for block in blocks for features in self._features(block)]
        return np.array(found, np.int32)
