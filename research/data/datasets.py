"""Opens data sets by name, for any task: built in, prepared by TFDS, or a person's own files."""

import ast
import functools
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from research.data import tasks
from research.data.config import DataConfig
from research.data.sources.splits import Dataset
from research.data.stored import builtin
from research.data.stored.sets import content, install, installed, is_whole, open_prepared
from research.data.tasks import Task, classification
from research.errors import UserError, nearest
from research.record.progress import console
from research.remote.sets import copied_set
from research.remote.store import is_remote

__all__ = ["Dataset", "builtins", "known", "load", "opener"]


def load(
    name: str,
    data_dir: str | Path,
    task: Task = classification.TASK,
    *,
    skip_corrupt: bool = False,
    split_seed: int = 0,
    sample: int = 0,
) -> Dataset:
    """Opens a data set.

    Args:
      name: a built-in set (made in data_dir on first use), a TFDS set that lies prepared in
        data_dir as NAME or NAME/CONFIG, or PREFIX:... for a person's own files.
      data_dir: a folder, or an address in a store, from which the set is copied.
      task: the fields that the set must hold, and the ways of reading it.
      skip_corrupt: leave unreadable files of one's own out, instead of stopping.
      split_seed: draws the test split of one's own files, where they have none.
      sample: the examples of each split that are looked at, for a check; 0 for all.

    Raises:
      UserError: for an unknown name (with the nearest), a set that is not prepared (with the
        command that prepares it), a set without the fields of the task, and files of a person's
        own that their reader refuses.
    """
    prefix, colon, rest = name.partition(":")
    if colon and prefix in task.own:
        own = task.own[prefix]
        options = {"most_checked": sample} if sample and own.checks else {}
        found = own.load(rest, skip_corrupt=skip_corrupt, split_seed=split_seed, **options)
        return found._replace(sample=sample)
    if is_own(name):
        raise UserError(f"--dataset={name}: this experiment takes {_own(task)}.")
    asked = data_dir
    if is_remote(data_dir):
        data_dir = copied_set(str(data_dir), name)
    prepared = installed(data_dir)
    configs = [other for other in prepared if other.startswith(f"{name}/")]
    if name not in prepared and len(configs) == 1:
        (name,) = configs
    if name in builtins():
        return open_prepared(name, current(name, data_dir), task)._replace(sample=sample)
    if name not in prepared:
        raise UserError(_missing(name, asked, list(prepared), task))
    return open_prepared(name, prepared[name], task)._replace(sample=sample)


def opener(config: DataConfig, task: Task) -> Callable[[], Dataset]:
    """Returns a function that opens the data set of --dataset, once, when it is first called."""
    return functools.cache(
        lambda: load(
            config.dataset,
            config.data_dir,
            task,
            skip_corrupt=config.skip_corrupt,
            split_seed=config.split_seed,
            sample=config.sample,
        )
    )


def is_own(name: str) -> bool:
    """Returns whether --dataset names a person's own files, not a published set."""
    prefix, colon, _ = name.partition(":")
    return bool(colon) and any(prefix in task.own for task in tasks.available().values())


def builtins() -> dict[str, str]:
    """Returns {name: first line of its documentation} of the sets in research/data/builtin."""
    found = {}
    for module in pkgutil.iter_modules(builtin.__path__):
        text = Path(builtin.__path__[0], f"{module.name}.py").read_text()
        first = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
        found[module.name] = first.removeprefix(f"{module.name}: ")
    return found


def current(name: str, data_dir: str | Path) -> Path:
    """Returns the folder of a built-in set in its present version, which is made if need be."""
    folder = Path(data_dir, name, str(_builder_class(name).VERSION))
    return folder if is_whole(folder) else prepare_builtin(name, data_dir)


def prepare_builtin(name: str, data_dir: str | Path) -> Path:
    """Makes a built-in set, and returns its folder. Raises UserError as `install` does."""
    console().print(f"preparing {name} in {data_dir}, once", markup=False)
    return install(lambda root: _builder(name, root), data_dir)


def known(data_dir: str | Path) -> list[tuple[str, str, str]]:
    """Returns rows for --mode=list: name, state, content."""
    from research.data.stored.conversions import CONVERSIONS

    prepared = installed(data_dir)
    rows = [(name, "built in", text) for name, text in builtins().items()]
    for name, folder in prepared.items():
        if name not in builtins():
            rows.append((name, "prepared", content(folder)))
    rows += [
        (name, f"--mode=prepare --dataset={name}", conversion.content)
        for name, conversion in CONVERSIONS.items()
        if name not in prepared
    ]
    rows += [
        (f"{prefix}:{own.usage}", "your own", own.content)
        for task in tasks.available().values()
        for prefix, own in task.own.items()
    ]
    return rows


def _builder(name: str, data_dir: str) -> Any:
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()  # a built-in set takes seconds
    return _builder_class(name)(data_dir=data_dir, file_format="array_record")


def _builder_class(name: str) -> Any:
    """Returns the one builder that research/data/stored/builtin/<name>.py defines."""
    import tensorflow_datasets as tfds

    module = importlib.import_module(f"{builtin.__name__}.{name}")
    (builder,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, tfds.core.GeneratorBasedBuilder)
        and value.__module__ == module.__name__
    )
    return builder


def _own(task: Task) -> str:
    """Lists the names for a person's own files, such as "folder:PATH", or says there are none."""
    own = " or ".join(f"{prefix}:{own.usage}" for prefix, own in task.own.items())
    return own or "data sets by name alone"


def _missing(name: str, data_dir: str | Path, prepared: list[str], task: Task) -> str:
    """Returns a message: why a name cannot be opened, and what to do."""
    import tensorflow_datasets as tfds

    from research.data.stored.conversions import CONVERSIONS

    configs = [other for other in prepared if other.startswith(f"{name}/")]
    if configs:
        return f"--dataset={name}: say which; prepared are {', '.join(configs)}"
    if is_remote(data_dir):
        return (
            f"--dataset={name}: is not in --data_dir={data_dir}; prepare it in a folder of this "
            "machine (--mode=prepare), and copy that there."
        )
    if Path(name).is_dir():
        return f"--dataset={name}: is a folder; write --dataset={next(iter(task.own))}:{name}"
    stock = {*tfds.list_builders(with_community_datasets=False), *CONVERSIONS}
    if name.partition("/")[0] in stock:
        return (
            f"--dataset={name}: is not prepared in --data_dir={data_dir}; run python launch.py "
            f"--mode=prepare --dataset={name} --data_dir={data_dir} with "
            "--source=FOLDER_OF_ITS_ARCHIVES or --allow_download"
        )
    here = sorted({*builtins(), *prepared})
    return (
        f"--dataset={name}: is unknown.{nearest(name, [*here, *stock])} Here are "
        f"{', '.join(here)} and {_own(task)}; --mode=list shows more"
    )
