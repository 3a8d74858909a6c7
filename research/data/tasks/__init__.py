"""The fields that tasks need of data sets, one task a file, registered by the file's TASK."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from research.data.sources.examples import Example
from research.data.sources.splits import Dataset


@runtime_checkable
class Record(Protocol):
    """A reader of one example of a prepared set; it can be pickled for worker processes."""

    def example(self, features: Mapping[str, Any], where: str) -> Example:
        """Decodes `features`, those of a tf.train.Example; `where` names it in messages."""
        ...

    def label(self, features: Mapping[str, Any]) -> int:
        """Returns the class by which splits are stratified; 0 for examples without classes."""
        ...


class Stored(NamedTuple):
    """The fields of a prepared set that a task uses."""

    record: Record
    class_names: tuple[str, ...]
    image_shape: tuple[int | None, int | None, int | None]


class Own(NamedTuple):
    """A layout of a person's own files, which --dataset=PREFIX:... names."""

    load: Callable[..., Dataset]  # (what follows the colon, skip_corrupt=..., split_seed=...)
    usage: str  # the part after the colon, for messages: PATH
    content: str  # what must lie there, in one line
    checks: bool = False  # whether `load` decodes every file, of at most `most_checked`


class Task(NamedTuple):
    """The ways of reading data sets for a task.

    Attributes:
      noun: the name of such a set in messages.
      find: the task's features in a TFDS DatasetInfo; None where the set holds others.
      own: layouts of a person's own files by prefix.
    """

    noun: str
    find: Callable[[Any], Stored | None]
    own: Mapping[str, Own]


def available() -> dict[str, Task]:
    """Returns every task by the name of its file."""
    modules = [
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    ]
    return {module.__name__.rpartition(".")[2]: module.TASK for module in modules}
