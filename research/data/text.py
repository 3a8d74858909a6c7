"""A text file as windows of characters."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from research.data.source import Example
from research.errors import UserError


def read_text(path: str | Path, flag: str = "--text") -> str:
    """The content of a text file, which the flag named; lines end with a line feed.

    Raises:
      UserError: a file that is not there, or not UTF-8.
    """
    try:
        text = Path(path).expanduser().read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{flag}={path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{flag}={path}: is not UTF-8 (byte {error.start}); convert it, as with "
            "iconv -f latin1 -t utf-8"
        ) from None
    return text.replace("\r\n", "\n")


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """{"tokens": int32 [length + 1]}: a stretch of text, and the character that follows it.

    Attributes:
      codes: the text, a number a character.
      length: characters that are read.
      stride: from the start of one window to the next.
    """

    codes: Int32[np.ndarray, " characters"]
    length: int
    stride: int

    def __len__(self) -> int:
        return max((len(self.codes) - self.length - 1) // self.stride + 1, 0)

    def __getitem__(self, index: int, /) -> Example:
        start = index * self.stride
        return {"tokens": self.codes[start : start + self.length + 1]}


def windows(
    codes: Int32[np.ndarray, " characters"], length: int, held_out: float
) -> tuple[Windows, Windows]:
    """Windows to train on, which overlap, and to evaluate on, which do not.

    Args:
      length: characters of a window.
      held_out: share of the text, its end, that is only evaluated on; 0: what is trained on.

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
    return Windows(trained, length, max(1, length // 4)), Windows(evaluated, length, length)
