"""Searches: the ranges and choices of flags, and the trials that are drawn from them.

--search='learning_rate=1e-4..1e-1', log-uniform; 'warmup=linear:0..0.2', uniform;
'batch_size=16..256', whole numbers, for such a flag; 'optimizer=sgd,adamw', choices.
"""

import itertools
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from research import config as config_lib
from research.comparison.runs import REPEATS
from research.config import Option
from research.errors import UserError, nearest

STRATEGIES = ("random", "grid", "halving")
# Flags that change what is measured, not how good it is.
MEASURED = (*REPEATS, "validation", "dataset", "skip_corrupt")
DIGITS = 4  # of a value that is drawn, so that a person can read and repeat it
RANGE = re.compile(r"(linear:)?([^,|]+?)\.\.([^,|/]+)(?:/(\d+))?")
# Draws without a new trial after which the search is taken to hold no more.
PATIENCE = 1_000


class Range(NamedTuple):
    """The numbers from `low` to `high`, both inclusive.

    Attributes:
      scale: "log": each factor is as probable as another; "linear": each difference is.
      whole: whether they are whole numbers.
      points: how many a grid takes; 0: none was said.
    """

    low: float
    high: float
    scale: Literal["log", "linear"]
    whole: bool = False
    points: int = 0

    def place(self, value: float) -> float:
        """Returns where a number lies: 0 at `low`, 1 at `high`."""
        low, high, at = (math.log(x) if self.scale == "log" else x for x in (*self[:2], value))
        return (at - low) / (high - low)

    def at(self, place: float) -> int | float:
        """Returns the number at a place, of DIGITS digits."""
        if self.scale == "log":
            value = self.low * (self.high / self.low) ** place
        else:
            value = self.low + (self.high - self.low) * place
        return round(value) if self.whole else float(f"{value:.{DIGITS}g}")

    def extremes(self) -> list[Any]:
        """Returns both ends."""
        return [round(x) if self.whole else x for x in (self.low, self.high)]

    def draw(self, generator: np.random.Generator) -> int | float:
        """Draws a number; of whole ones, each end is as probable as its neighbours."""
        if not self.whole:
            return self.at(generator.uniform())
        widened = self._replace(low=self.low - 0.5, high=self.high + 0.5)
        return int(min(max(widened.at(generator.uniform()), self.low), self.high))

    def grid(self) -> list[Any]:
        """Returns `points` numbers at even distances; whole ones once each."""
        places = np.linspace(0.0, 1.0, self.points)
        return list(dict.fromkeys(self.at(float(place)) for place in places))

    def text(self) -> str:
        """Returns it as --search takes it."""
        ends = f"{_short(self.low)}..{_short(self.high)}"
        return f"{'linear:' if self.scale == 'linear' else ''}{ends}"


class Choices(NamedTuple):
    """Some values, each as probable as another."""

    values: tuple[Any, ...]

    def extremes(self) -> list[Any]:
        """Returns all of them: none lies between others."""
        return list(self.values)

    def draw(self, generator: np.random.Generator) -> Any:
        """Draws one of them."""
        return self.values[generator.integers(len(self.values))]

    def grid(self) -> list[Any]:
        """Returns all of them."""
        return list(self.values)

    def text(self) -> str:
        """Returns them as --search takes them."""
        said = [config_lib.show(value) for value in self.values]
        return ("|" if any("," in one for one in said) else ",").join(said)


Space = Mapping[str, Range | Choices]  # by the flag's name


def read_space(said: Sequence[str], config: config_lib.Configuration) -> dict[str, Range | Choices]:
    """Reads what --search says, once for each flag.

    Args:
      config: the Config that all trials have in common.

    Raises:
      UserError: for a flag that is none or that cannot be searched, a range without numbers
        between its ends, and a value that the flag does not take.
    """
    if not said:
        raise UserError(
            "--mode=tune needs --search='learning_rate=1e-4..1e-1', once for each flag it searches."
        )
    known = {row.flag: row for row in config_lib.options(type(config))}
    space: dict[str, Range | Choices] = {}
    for text in said:
        where = f"--search={text}"
        flag, given, values = text.removeprefix("--").partition("=")
        if flag not in known:
            raise UserError(f"{where}: there is no flag {flag!r}.{nearest(flag, known)}")
        if flag in space:
            raise UserError(f"{where}: --{flag} is searched twice; name all its values once.")
        row = known[flag]
        if not (row.changes_result and row.learned and row.saved) or row.name in MEASURED:
            raise UserError(f"{where}: --{flag} does not change what is learned; leave it out.")
        if not given or not values.strip():
            raise UserError(f"{where}: needs values, LOW..HIGH or A,B,C.")
        space[flag] = _dimension(values.strip(), row, where)
        for value in space[flag].extremes():
            typed = tuple(value.split(",")) if row.type is tuple else value
            try:
                config_lib.replace(config, {row.name: typed})
            except UserError as error:
                raise UserError(f"{where}: {error}") from error
    return space


def _dimension(text: str, row: Option, where: str) -> Range | Choices:
    """Reads the values of one flag."""
    found = RANGE.fullmatch(text) if row.type in (int, float) else None
    if found is None:
        separator = "|" if "|" in text or row.type is tuple else ","
        values = [_value(one.strip(), row, where) for one in text.split(separator)]
        if twice := [value for value in values if values.count(value) > 1]:
            raise UserError(f"{where}: {config_lib.show(twice[0])} is given twice.")
        return Choices(tuple(values))
    low, high = (float(_value(found[i], row, where)) for i in (2, 3))
    scale: Literal["log", "linear"] = "linear" if found[1] else "log"
    if not low < high:
        raise UserError(f"{where}: the first end has to be below the second.")
    if scale == "log" and low <= 0:
        raise UserError(
            f"{where}: a range by factors begins above 0; linear:{text} is one by differences."
        )
    if found[4] and int(found[4]) < 2:
        raise UserError(f"{where}: a grid takes at least 2 values of a range.")
    return Range(low, high, scale, row.type is int, int(found[4] or 0))


def _value(text: str, row: Option, where: str) -> Any:
    """Returns a value of the flag's type."""
    if row.type is bool and text in ("true", "false"):
        return text == "true"
    try:
        if row.type not in (int, float):
            if row.type is bool:
                raise ValueError
            return text
        number = float(text)
        if not math.isfinite(number) or (row.type is int and not number.is_integer()):
            raise ValueError
        return row.type(number)
    except ValueError:
        needed = {bool: "true or false", int: "a whole number", float: "a number"}[row.type]
        raise UserError(f"{where}: {text!r}: {needed} is needed.") from None


def draw(space: Space, seed: int, count: int) -> list[dict[str, Any]]:
    """Draws trials, {flag: value}, no two of them alike.

    Each is a function of the seed, its number and what is searched: more trials have the same
    first ones, and a flag's values stay where another flag is searched beside it, but for what
    would be a trial twice.

    Raises:
      UserError: where there are fewer.
    """
    found: list[dict[str, Any]] = []
    for trial in itertools.islice(_draws(space, seed), count + PATIENCE):
        if trial not in found:
            found.append(trial)
        if len(found) == count:
            return found
    raise UserError(
        f"--trials={count}: --search holds {len(found)} combinations; take fewer trials, or all "
        "with --strategy=grid."
    )


def _draws(space: Space, seed: int) -> Iterator[dict[str, Any]]:
    for number in itertools.count():
        yield {
            flag: dimension.draw(np.random.default_rng([seed, number, zlib.crc32(flag.encode())]))
            for flag, dimension in space.items()
        }


def grid(space: Space) -> list[dict[str, Any]]:
    """Returns all combinations, {flag: value}.

    Raises:
      UserError: for a range that does not say how many values it stands for.
    """
    for flag, dimension in space.items():
        if isinstance(dimension, Range) and not dimension.points:
            said = dimension.text()
            raise UserError(
                f"--search={flag}={said}: a grid needs to know how many of these: {flag}={said}/5."
            )
    values = (dimension.grid() for dimension in space.values())
    return [dict(zip(space, chosen, strict=True)) for chosen in itertools.product(*values)]


def _short(value: float) -> str:
    return f"{value:.{DIGITS}g}"
