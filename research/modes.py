"""The options of the command, and further modes of experiments; imports no JAX."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from research.record.report import Report


@runtime_checkable
class Launch(Protocol):
    """The options of the command itself, whatever the experiment."""

    @property
    def experiment(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def checkpoint(self) -> tuple[str, ...]: ...
    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def details(self) -> tuple[str, ...]: ...
    @property
    def source(self) -> str: ...
    @property
    def allow_download(self) -> bool: ...
    @property
    def study(self) -> str: ...
    @property
    def variant(self) -> tuple[str, ...]: ...
    @property
    def repeats(self) -> int: ...
    @property
    def search(self) -> tuple[str, ...]: ...
    @property
    def trials(self) -> int: ...
    @property
    def strategy(self) -> Literal["random", "grid", "halving"]: ...
    @property
    def jobs(self) -> int: ...
    @property
    def share(self) -> str: ...
    @property
    def distributed(self) -> str: ...
    @property
    def join_timeout(self) -> float: ...
    @property
    def run(self) -> str: ...
    @property
    def topology(self) -> str: ...
    @property
    def results(self) -> tuple[str, ...]: ...
    @property
    def runs(self) -> tuple[str, ...]: ...
    @property
    def metric(self) -> str: ...
    @property
    def difference(self) -> float: ...
    @property
    def baseline(self) -> str: ...
    @property
    def show(self) -> str: ...


class Modes(NamedTuple):
    """The further modes of an experiment, which its module declares as MODES.

    Attributes:
      reports: {mode: configuration -> report}, such as "diagnose".
      pages: {mode: configuration -> a function that makes an HTML page, as text}. The first call
        refuses what cannot be shown; the function does the work.
      pretrained: (configuration, names of the flags that were typed) -> configuration, facts and
        variables of a trained network that --init_from names, as if it were a checkpoint; None
        where it takes a checkpoint.
    """

    reports: Mapping[str, Callable[[Any], Report]] = {}
    pages: Mapping[str, Callable[[Any], Callable[[], str]]] = {}
    pretrained: Callable[..., tuple[Any, dict[str, Any], Any]] | None = None


def modes_of(module: ModuleType) -> Modes:
    """Returns the modes that an experiment's module declares; none if it declares none."""
    found: Modes = vars(module).get("MODES", Modes())
    return found
