"""A configuration is a frozen dataclass; this file turns it into flags, text and JSON and back.

Knows nothing of absl: launch.py defines the flags from `options`, so library code reads none.
"""

import dataclasses
import math
import textwrap
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

from research.errors import UserError, nearest
from research.remote.store import is_remote


@runtime_checkable
class Configuration(Protocol):
    """A frozen dataclass whose fields `option` made."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


C = TypeVar("C", bound=Configuration)


class Retiring:
    """A base class of configurations that had flags once which are gone.

    Attributes:
      RETIRED: these flags, and their defaults. Files of earlier versions hold them, so they are
        still read; they have no effect.
    """

    RETIRED: ClassVar[Mapping[str, Any]]


def option(
    default: Any,
    help: str,
    *,
    minimum: int | float | None = None,
    maximum: int | float | None = None,
    changes_result: bool = True,
    saved: bool = True,
    repeated: bool = False,
    learned: bool = True,
    only: tuple[str, ...] = (),
    choices: Iterable[str] = (),
    auto: int | None = None,
) -> Any:
    """Makes a dataclass field that becomes a flag.

    Args:
      default: its default value.
      help: its effect, with units, in one line.
      minimum, maximum: the values allowed, both inclusive.
      changes_result: False for options that do not change the numbers (folders, logging, parallel
        mode): a run may be resumed, and a checkpoint opened, under another value.
      saved: False for options that flags.txt must not hold (the run's folder).
      repeated: True for a tuple whose flag is given once for each item, not as A,B,...
      learned: False for options that only use a network's outputs: a checkpoint may be evaluated,
        and may predict, under another value; a run is not resumed under it.
      only: the modes that take the flag; () for all.
      choices: the values allowed, of a field of type str; a Literal says so by itself.
      auto: of a field of type int, the value that "auto" stands for; beyond minimum and maximum.
    """
    metadata = {
        "help": help,
        "minimum": minimum,
        "maximum": maximum,
        "changes_result": changes_result,
        "saved": saved,
        "repeated": repeated,
        "learned": learned,
        "only": only,
        "choices": tuple(choices),
        "auto": auto,
    }
    return dataclasses.field(default=default, metadata=metadata)


_KINDS = {bool: "true|false", int: "INTEGER", float: "NUMBER", str: "TEXT", tuple: "A,B,..."}


_FOLDERS = ("workdir", "data_dir")


def not_a_flag(default: Any) -> Any:
    """Makes a dataclass field that is no flag, and no part of what is saved."""
    return dataclasses.field(default=default, compare=False, metadata={"flag": False})


class Option(NamedTuple):
    """A field of a configuration, as the shell sees it."""

    name: str
    type: type  # bool, int, float, str or tuple (comma-separated strings)
    choices: tuple[str, ...]  # empty: any value
    default: Any
    help: str
    group: str  # first line of the docstring of the class that defines the field
    minimum: int | float | None
    maximum: int | float | None
    changes_result: bool
    saved: bool
    repeated: bool
    learned: bool
    only: tuple[str, ...]
    auto: int | None

    @property
    def flag(self) -> str:
        """Returns the flag's name: the field `class_` is --class, as Python reserves the word."""
        return self.name.rstrip("_")


def options(config_class: type) -> list[Option]:
    """Returns the fields of a configuration class, base classes first, each with its group."""
    types = typing.get_type_hints(config_class)
    rows = []
    for field in dataclasses.fields(config_class):
        if not field.metadata.get("flag", True):
            continue
        annotation, choices = types[field.name], field.metadata.get("choices", ())
        if typing.get_origin(annotation) is Literal:
            choices, annotation = typing.get_args(annotation), str
        annotation = typing.get_origin(annotation) or annotation  # tuple[str, ...] -> tuple
        if annotation not in (bool, int, float, str, tuple):
            raise TypeError(f"{config_class.__name__}.{field.name}: no flag for {annotation}")
        owner = next(
            c
            for c in reversed(config_class.__mro__)
            if field.name in vars(c).get("__annotations__", {})
        )
        group = (owner.__doc__ or owner.__name__).strip().splitlines()[0]
        if group.startswith(f"{owner.__name__}("):  # dataclass writes a docstring if none is given
            group = owner.__name__
        rows.append(
            Option(
                field.name,
                annotation,
                default=field.default,
                group=group,
                **{
                    "help": "",
                    "minimum": None,
                    "maximum": None,
                    "changes_result": True,
                    "saved": True,
                    "repeated": False,
                    "learned": True,
                    "only": (),
                    "auto": None,
                    **field.metadata,
                    "choices": choices,
                },
            )
        )
    return rows


def validate(config: C) -> C:
    """Returns the configuration; raises UserError at the first value that is not allowed."""
    for row in options(type(config)):
        value = getattr(config, row.name)
        flag = f"--{row.flag}={show(value)}"
        if row.auto is not None and value == row.auto:
            continue
        if row.choices and value not in row.choices:
            hint = nearest(str(value), row.choices)
            raise UserError(f"{flag}: one of {', '.join(row.choices)} is needed.{hint}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{flag}: a finite number is needed.")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise UserError(f"{flag}: is beyond the whole numbers of 64 bits.")
        if row.name in _FOLDERS and "://" in value and not is_remote(value):
            raise UserError(f"{flag}: a folder, or an address of gs:// or s3://, is needed.")
        if row.minimum is not None and value < row.minimum:
            raise UserError(f"{flag}: at least {row.minimum} is needed.")
        if row.maximum is not None and value > row.maximum:
            raise UserError(f"{flag}: at most {row.maximum} is allowed.")
    return config


def show(value: Any) -> str:
    """Returns a value as the shell takes it; floats keep every bit."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return repr(value) if isinstance(value, float) else str(value)


def to_flagfile(experiment: str, config: Configuration) -> str:
    """Returns the text of flags.txt: `python launch.py --flagfile=flags.txt` repeats the run."""
    rows = [f"--experiment={experiment}"]
    rows += [
        f"--{row.flag}={show(getattr(config, row.name))}"
        for row in options(type(config))
        if row.saved
    ]
    return "\n".join(rows) + "\n"


def to_json(config: Configuration) -> dict[str, Any]:
    """Returns plain JSON values by field name."""
    values = {row.name: getattr(config, row.name) for row in options(type(config))}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def from_json(config_class: type, values: Mapping[str, Any], origin: str) -> Any:
    """Returns the configuration that `to_json` wrote. Fields added since then take their defaults.

    Raises UserError for fields that no longer exist, but for retired ones at their default;
    `origin` says where the values were read.
    """
    for name in retired(config_class).keys() & values.keys():
        check_retired(config_class, name, values[name], f"{origin}: ")
    values = {k: value for k, value in values.items() if k not in retired(config_class)}
    known = {row.name for row in options(config_class)}
    unknown = [name for name in values if name not in known]
    if unknown:
        raise UserError(
            f"{origin}: holds the option {unknown[0]!r}, which this version does not know."
            f"{nearest(unknown[0], known)}"
        )
    return config_class(
        **{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    )


def retired(config_class: type) -> Mapping[str, Any]:
    """Returns the flags that a configuration had once, and their defaults."""
    return config_class.RETIRED if issubclass(config_class, Retiring) else {}


def check_retired(config_class: type, name: str, value: Any, origin: str = "") -> None:
    """Raises UserError for a retired flag that is not at its default."""
    if value != retired(config_class)[name]:
        raise UserError(
            f"{origin}--{name}={show(value)}: is a flag of earlier versions that has no effect "
            "here; leave it out."
        )


def replace(config: C, changes: Mapping[str, Any]) -> C:
    """Returns the configuration with some fields changed; refuses values that are not allowed."""
    return validate(dataclasses.replace(config, **changes))


def redefault(base: type, name: str, default: Any) -> Any:
    """Returns the field `name` of a base class with another default; help and limits stay."""
    field = next(f for f in dataclasses.fields(base) if f.name == name)
    return dataclasses.field(default=default, metadata=field.metadata)


UsedBy = Mapping[str, Sequence[str]]  # field -> the choices that it has an effect on


def used_by(declared: Mapping[str, Sequence[type | str]]) -> UsedBy:
    """Returns the choices that each field has an effect on, from what each choice declares.

    Args:
      declared: {choice: the classes whose fields have an effect on it, and names of single fields
        of classes that others share}. A field that no choice declares has an effect on all.
    """
    found: dict[str, list[str]] = {}
    for choice, items in declared.items():
        for item in items:
            fields = (
                (item,) if isinstance(item, str) else (f.name for f in dataclasses.fields(item))
            )
            for name in fields:
                found.setdefault(name, []).append(choice)
    return {name: tuple(choices) for name, choices in found.items()}


def refuse_unused(config: Configuration, chooser: str, used_by: UsedBy) -> None:
    """Raises UserError for a flag without effect on the choice of the field `chooser`."""
    defaults = without_unused(config, chooser, used_by)
    for row in options(type(config)):
        if getattr(config, row.name) != getattr(defaults, row.name):
            raise UserError(
                f"--{row.flag}: has no effect on --{chooser}={getattr(config, chooser)}, only on "
                f"{', '.join(used_by[row.name])}; leave it out."
            )


def without_unused(config: C, chooser: str, used_by: UsedBy) -> C:
    """Returns the configuration with defaults in the flags that `refuse_unused` refuses."""
    choice = getattr(config, chooser)
    unused = {
        row.name: row.default
        for row in options(type(config))
        if choice not in used_by.get(row.name, (choice,))
    }
    return dataclasses.replace(config, **unused)


def differences(old: Configuration, new: Configuration) -> list[str]:
    """Returns the differences that change the result: "--seed=0 there, --seed=1 here"."""
    return [
        f"--{row.flag}={show(getattr(old, row.name))} there, {show(getattr(new, row.name))} here"
        for row in options(type(new))
        if row.changes_result and getattr(old, row.name) != getattr(new, row.name)
    ]


def manual(config_class: type) -> str:
    """Returns the flags of a configuration, grouped under their headings, for --help."""
    lines: list[str] = []
    group = None
    for row in options(config_class):
        if row.group != group:
            group = row.group
            lines += ["", f"{group.rstrip('.')}:"]
        kind = "|".join(row.choices) or ("TEXT" if row.repeated else _KINDS[row.type])
        kind += "" if row.auto is None else "|auto"
        lines.append(f"  --{row.flag}={kind}  (default: {show(row.default) or 'empty'})")
        lines += textwrap.wrap(row.help, 90, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines).strip("\n")
