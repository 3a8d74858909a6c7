"""What a data set must hold for a task, one task a file; a file's TASK is all that registers it."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from research.data.source import Example
from research.data.splits import Dataset


@runtime_checkable
class Record(Protocol):
    """Reads one example of a prepared set; it can be pickled for worker processes."""

    def example(self, features: Mapping[str, Any], where: str) -> Example:
        """The example, decoded. `features` are those of a tf.train.Example, `where` names it."""
        ...

    def label(self, features: Mapping[str, Any]) -> int:
        """The class by which splits are divided evenly; 0 for all where examples have none."""
        ...


class Stored(NamedTuple):
    """What a task finds in a prepared set."""

    record: Record
    class_names: tuple[str, ...]
    image_shape: tuple[int | None, int | None, int | None]


class Own(NamedTuple):
    """A layout of a person's own files, which --dataset=PREFIX:... names."""

    load: Callable[..., Dataset]  # (what follows the colon, skip_corrupt=...)
    usage: str  # what follows the colon: PATH
    content: str  # what must lie there, in one line


class Task(NamedTuple):
    """How data sets are read for a task.

    Attributes:
      noun: what such a set is called in messages.
      find: the task's features in a TFDS DatasetInfo; None where the set holds others.
      own: layouts of a person's own files by prefix.
    """

    noun: str
    find: Callable[[Any], Stored | None]
    own: Mapping[str, Own]


def available() -> dict[str, Task]:
    """Every task by the name of its file."""
    modules = [
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    ]
    return {module.__name__.rpartition(".")[2]: module.TASK for module in modules}
