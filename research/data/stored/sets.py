"""TFDS sets on disk: found by name, installed whole or not at all, read without TensorFlow."""

import contextlib
import dataclasses
import errno
import fcntl
import functools
import io
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from research.data.sources.examples import Example
from research.data.sources.splits import Dataset
from research.data.tasks import Record, Task
from research.errors import UserError
from research.record import checksums
from research.record.checksums import DamagedError

T = TypeVar("T")

MARK = "features.json"  # data_dir/NAME[/CONFIG]/VERSION/features.json: the set is complete
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT} | {
    errno.EEXIST,  # there is a file where the folder should be
    errno.ENOTDIR,
}
# Names, with or without _id, of features by which examples belong together: pictures of one person,
# by one hand, of one typeface. TFDS has no mark for them.
GROUPS = ("group", "writer", "drawer", "patient", "subject", "person", "identity", "family")
# Bytes of a set that are compared when it is opened: 3 to 8 s. Of larger files sizes are, and their
# records carry checksums of their own; --mode=check compares all.
MOST_COMPARED = 2**32
VERSION = re.compile(r"\d+\.\d+\.\d+")


def installed(data_dir: str | Path) -> dict[str, Path]:
    """Returns the prepared sets: {NAME or NAME/CONFIG: folder of its highest version}."""
    root = Path(data_dir)
    marks = [*root.glob(f"[!.]*/*/{MARK}"), *root.glob(f"[!.]*/*/*/{MARK}")]
    folders = [mark.parent for mark in marks if VERSION.fullmatch(mark.parent.name)]
    folders.sort(key=lambda folder: (folder.parent, *map(int, folder.name.split("."))))
    return {folder.parent.relative_to(root).as_posix(): folder for folder in folders}


def is_whole(folder: Path) -> bool:
    """Returns whether a folder data_dir/NAME[/CONFIG]/VERSION holds a prepared set."""
    return (folder / MARK).exists()


def install(make: Callable[[str], Any], data_dir: str | Path, **options: Any) -> Path:
    """Prepares a set in a hidden folder of data_dir and renames it into place when it is whole.

    If several processes prepare one set at once, the first to end wins and all use its files.

    Args:
      make: gives the TFDS builder for a data_dir.
      options: for the builder's `download_and_prepare`.

    Raises:
      UserError: when data_dir cannot be written.
    """
    root = Path(data_dir)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _workshop(root) as scratch:
            builder = make(scratch)
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces even no download
                builder.download_and_prepare(**options)
            made = Path(os.fspath(builder.data_dir))
            checksums.write(made)
            target = root / made.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                made.rename(target)
            except OSError:
                if not is_whole(target):
                    raise
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        raise UserError(
            f"--data_dir={root}: cannot be written ({error.strerror}); choose another"
        ) from None
    return target


@contextlib.contextmanager
def _workshop(root: Path) -> Iterator[str]:
    """Makes a hidden folder to prepare a set in, and removes those that killed processes left.

    Processes that prepare share a lock of data_dir, which the system takes from killed processes
    too. So a process that gets it alone knows that hidden folders are those of dead processes.
    """
    lock = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # another process prepares, perhaps in one of the folders
        else:
            for folder in root.glob(".preparing_*"):
                shutil.rmtree(folder, ignore_errors=True)
        fcntl.flock(lock, fcntl.LOCK_SH)
        with tempfile.TemporaryDirectory(prefix=".preparing_", dir=root) as scratch:
            yield scratch
    finally:
        os.close(lock)


def check_intact(folder: Path, most: int | float = math.inf) -> int | None:
    """Compares a prepared set with the checksums that were written when it was prepared.

    Args:
      most: bytes of content that are compared; of larger files sizes alone.

    Returns:
      How many bytes were compared; None for a set that was prepared without checksums.

    Raises:
      DamagedError: with the file's name, and what to do.
    """
    if not (folder / checksums.NAME).is_file():
        return None
    try:
        return sum(row["size"] for row in checksums.verify(folder, most=most).values())
    except DamagedError as error:
        said = str(error).removesuffix(".")
        raise DamagedError(f"{said}; move the folder away and prepare the set anew") from None


@functools.cache
def _checked(folder: Path, written: int) -> None:
    """Compares a set once in a process; what was prepared anew is another."""
    check_intact(folder, MOST_COMPARED)


def open_prepared(name: str, folder: Path, task: Task) -> Dataset:
    """Opens the set in a folder data_dir/NAME[/CONFIG]/VERSION, whose files are compared first.

    Raises:
      DamagedError: where a file is other than it was prepared.
      UserError: where its examples lack fields of the task, or are stored in a format that only
        TensorFlow reads.
    """
    import tensorflow_datasets as tfds

    _checked(folder, (folder / MARK).stat().st_mtime_ns)
    info = tfds.builder_from_directory(folder).info
    if info.file_format.value != "array_record":
        raise UserError(
            f"--dataset={name}: {folder} is stored as {info.file_format.value}, which only "
            f"TensorFlow reads; move it away, and --mode=prepare --dataset={name} stores it anew"
        )
    found = task.find(info)
    if found is None:
        raise UserError(
            f"--dataset={name}: is no {task.noun}; its examples have {', '.join(info.features)}"
        )
    group = group_of(dict(info.features))
    citation = " ".join((info.citation or info.homepage or "").split())
    licence = info.redistribution_info.license if info.redistribution_info else ""
    return Dataset(
        name=name,
        splits={
            split: PreparedSplit(str(folder), split, found.record, group) for split in info.splits
        },
        class_names=found.class_names,
        image_shape=found.image_shape,
        citation=f"{citation} Licence: {licence}" if licence else citation,
    )


def content(folder: Path) -> str:
    """Describes a prepared set in one line: its fields, or classes, and split sizes."""
    import tensorflow_datasets as tfds

    try:
        info = tfds.builder_from_directory(folder).info
        fields = []
        for name, feature in info.features.items():
            if isinstance(feature, tfds.features.ClassLabel):
                fields.append(f"{feature.num_classes} classes")
            elif isinstance(feature, tfds.features.Image):
                shape = "x".join("any" if n is None else str(n) for n in feature.shape)
                fields.append(shape if name == "image" else f"{name} {shape}")
            elif name in ("objects", "captions"):
                fields.append(name)
        sizes = [f"{split} {each.num_examples:,}" for split, each in info.splits.items()]
    except Exception:  # a damaged set must not stop the list of sets
        return "cannot be read"
    return f"{', '.join(fields)}; {', '.join(sizes)}"


def group_of(features: Mapping[str, Any]) -> str:
    """Returns the feature of a set that names who or what an example is of, by GROUPS; or ""."""
    import tensorflow_datasets as tfds

    kinds = (tfds.features.ClassLabel, tfds.features.Text, tfds.features.Scalar)
    names = (name for group in GROUPS for name in (group, f"{group}_id"))
    return next((name for name in names if isinstance(features.get(name), kinds)), "")


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedSplit:
    """A split stored as array_record, read by the record of a task.

    Attributes:
      group: the feature that says which examples belong together; "" if none does.
    """

    folder: str
    split: str
    record: Record
    group: str = ""

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
        where = f"{self.folder}, example {{}} of {self.split}"
        return [self.record.example(features, where.format(index)) for index, features in pairs]

    def scan(self, read: Callable[[Mapping[str, Any]], T]) -> list[T]:
        """Returns read(features) of every example, in order; no image is decoded."""
        blocks = (range(i, min(i + 256, len(self))) for i in range(0, len(self), 256))
        return [read(features) for block in blocks for features in self._features(block)]

    @functools.cached_property
    def labels(self) -> np.ndarray:
        return np.array(self.scan(self.record.label), np.int32)

    @functools.cached_property
    def groups(self) -> np.ndarray | None:
        """Returns the number of each example's group; None where the set names no groups."""
        if not self.group:
            return None

        def value(features: Mapping[str, Any]) -> int | bytes:
            feature = features[self.group]
            return (*feature.int64_list.value, *feature.bytes_list.value)[0]

        return np.unique(self.scan(value), return_inverse=True)[1]
