"""The pages of docs/course: their topics, each with commands and what must hold of what they print.

    ## A1 Title                     a topic
    ```bash
    python launch.py ...            its commands, in order
    ```
    Holds: `name < 3`, `"text"`.    of the results' numbers, or a text that is printed

A number is that of the last command that has it; `2:name` is the second command's. `==` allows for
rounding: one part in a thousand, or 1e-6. The section "Runs" makes what commands name in capitals.

    PYTHONPATH=. python tests/course_pages.py [EXAMPLE ...]

draws the pages' pictures of worked examples again: all, or those of some.
"""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "course"
PICTURES = FOLDER / "pictures"
COUNTS = {"A": 9, "B": 21, "C": 27, "D": 16, "E": 86}
TOPICS = [f"{letter}{i}" for letter, count in COUNTS.items() for i in range(1, count + 1)]
RELATION = re.compile(r"(\S+) (==|<=|>=|<|>) (\S+)")


class Topic(NamedTuple):
    """A topic of a page.

    Attributes:
      commands: lines of its ```bash block.
      holds: relations, and texts in quotation marks.
      runs: commands that make the runs its page names.
    """

    name: str
    title: str
    commands: tuple[str, ...]
    holds: tuple[str, ...]
    runs: tuple[str, ...]


def topics(page: Path) -> list[Topic]:
    """Reads a page's topics, in its order."""
    found, runs = [], ()
    for part in re.split(r"^#{2,3} ", page.read_text(), flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        blocks = re.findall(r"```bash\n(.*?)```", body, re.DOTALL)
        commands = tuple(line for block in blocks for line in block.splitlines())
        if title == "Runs":
            runs = commands
        elif named := re.match(r"([A-E]\d+) (.+)", title):
            said = re.search(r"^Holds: (.*?)\.$", body, re.DOTALL | re.MULTILINE)
            holds = re.findall(r"`([^`]+)`", said[1]) if said else []
            found.append(Topic(named[1], named[2], commands, tuple(holds), runs))
    return found


def every() -> list[Topic]:
    """Reads the topics of all pages."""
    return [topic for page in sorted(FOLDER.glob("*.md")) for topic in topics(page)]


def number(word: str, metrics: Sequence[Mapping[str, float]]) -> float:
    """Returns the number that a word stands for.

    Raises:
      KeyError: if no command found one of this name.
    """
    try:
        return float(word)
    except ValueError:
        pass
    which = re.fullmatch(r"(\d):(.+)", word)
    if which:
        return metrics[int(which[1]) - 1][which[2]]
    merged = {k: v for one in metrics for k, v in one.items()}
    return merged[word]


def holds(relation: str, metrics: Sequence[Mapping[str, float]], printed: str) -> tuple[bool, str]:
    """Returns whether a relation holds, and in words what was found."""
    if relation.startswith('"'):
        return relation.strip('"') in printed, "printed"
    parts = RELATION.fullmatch(relation)
    assert parts is not None, f"{relation!r} is no relation"
    left, right = number(parts[1], metrics), number(parts[3], metrics)
    true = {
        "==": math.isclose(left, right, rel_tol=1e-3, abs_tol=1e-6),
        "<": left < right,
        ">": left > right,
        "<=": left <= right,
        ">=": left >= right,
    }[parts[2]]
    return true, f"{left:.6g}"


def draw(names: Sequence[str]) -> None:
    """Draws examples' first pictures as the pages show them: small ones, of 64 colours."""
    from PIL import Image

    from experiments.worked_examples import Config
    from research.course.examples import EXAMPLES

    for name in names or EXAMPLES:
        figure = next(iter(EXAMPLES[name].load()(Config(example=name)).draw().values()))
        path = PICTURES / f"{name}.png"
        figure.savefig(path, dpi=72)
        Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)


if __name__ == "__main__":
    draw(sys.argv[1:])
