"""Windows of characters of a text."""

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int32

from research.data.files import at_home, read_text
from research.data.sources.examples import Example
from research.data.text.tokens import Characters
from research.errors import UserError

# Texts that come with Python: {name: module whose source is the text}.
BUILTIN = {"python_manual": "pydoc_data.topics"}


def load(path: str | Path, flag: str = "--text") -> str:
    """Reads the text that a flag names, a file or one of BUILTIN; lines end with a line feed.

    Raises:
      UserError: a file that does not exist, or is not UTF-8; a name that is also a file's.
    """
    file, said = at_home(path), f"{flag}={path}"
    if module := BUILTIN.get(str(path)):
        if file.exists():
            raise UserError(
                f"{said}: is the name of a built-in text, and of a file; ./{path} is the file."
            )
        found = importlib.util.find_spec(module)
        if found is None or not found.origin:
            raise UserError(f"{said}: this Python comes without {module}.")
        file = Path(found.origin)
    return read_text(file, said).replace("\r\n", "\n")


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """Stretches of a text: {"tokens": int32 [length + 1], "counted": bool [length]}.

    From each character but the last, the next one is predicted. Where the text ends before the
    stretch, the tokens are 0 and do not count.

    Attributes:
      codes: the text, a number for each character.
      length: characters that are read.
      starts: the first position of each stretch.
    """

    codes: Int32[np.ndarray, " characters"]
    length: int
    starts: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int, /) -> Example:
        start = self.starts[index]
        stretch = self.codes[start : start + self.length + 1]
        counted = np.arange(1, self.length + 1) < len(stretch)
        return {"tokens": np.pad(stretch, (0, self.length + 1 - len(stretch))), "counted": counted}


def windows(
    codes: Int32[np.ndarray, " characters"], length: int, held_out: float
) -> tuple[Windows, Windows]:
    """Makes training windows, which overlap, and evaluation windows, with each character once.

    The last training window ends with the text; the last evaluation window may be shorter.

    Args:
      length: characters of a window.
      held_out: share of the text, at its end, for evaluation alone; 0: evaluation uses all text.

    Raises:
      UserError: where a part is shorter than one window.
    """
    first = len(codes) - round(held_out * len(codes))
    parts = {"text": codes[:first], "held-out end": codes[first:] if held_out else codes}
    for name, part in parts.items():
        if len(part) < length + 1:
            raise UserError(
                f"--sequence_length={length}: the {name} has {len(part)} characters, and "
                f"{length + 1} at least are needed; shorten it, give a longer --text, or change "
                "--validation."
            )
    trained, evaluated = parts.values()
    last = len(trained) - length - 1
    starts = np.unique([*range(0, last, max(1, length // 4)), last])
    apart = np.arange(0, len(evaluated) - 1, length)
    return Windows(trained, length, starts), Windows(evaluated, length, apart)


def read_beginnings(files: Sequence[str], characters: Characters) -> dict[str, np.ndarray]:
    """Reads texts to continue: "beginning" int32 [n, time], and their "length" int32 [n].

    Time is a multiple of 64, so that few shapes are compiled. The line feed that ends a file is
    left out.

    Raises:
      UserError: naming the file, for one that is empty, or holds a character that is not known.
    """
    beginnings = []
    for file in files:
        beginning = load(file, "--inputs")
        if len(beginning) > 1:
            beginning = beginning.removesuffix("\n")
        if not beginning:
            raise UserError(f"{file}: is empty; a beginning has a character at least.")
        try:
            beginnings.append(characters.encode(beginning))
        except UserError as error:
            raise UserError(f"{file}: {error}.") from None
    longest = -(-max(map(len, beginnings)) // 64) * 64
    table = np.zeros((len(files), longest), np.int32)
    for row, codes in zip(table, beginnings, strict=True):
        row[: len(codes)] = codes
    return {"beginning": table, "length": np.array([len(x) for x in beginnings], np.int32)}


def continued(
    beginnings: Mapping[str, np.ndarray], tokens: Int[np.ndarray, "n time"], characters: Characters
) -> list[dict[str, str]]:
    """Returns the beginning and the text that was written on from it, of each row.

    Args:
      beginnings: as `read_beginnings` gives them.
    """
    rows = zip(beginnings["beginning"], beginnings["length"], tokens, strict=True)
    found = []
    for codes, length, written in rows:
        beginning, text = characters.decode(codes[:length]), characters.decode(written)
        found.append({"summary": beginning + text, "beginning": beginning, "text": text})
    return found
