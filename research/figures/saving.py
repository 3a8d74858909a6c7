"""Saves figures with every text in them as it was given: class names may hold any character."""

import functools
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib import font_manager
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter

from research.record.progress import console

_said: set[str] = set()


def save(figure: Figure, target: Path | BytesIO, **options: Any) -> None:
    """Saves a figure as a PNG, with all characters of its texts.

    Dollar signs begin no formulas. A character that the font lacks is taken from another font of
    this machine; if none has it, its number replaces it (\\u732b), and a printed line says so.
    """
    others = [text for axis in figure.findobj(Axis) for text in _numbers(axis)]
    texts = [text for text in figure.findobj(Text) if text not in others]
    for axis in figure.findobj(Axis):
        texts += axis.get_ticklabels() if _is_named(axis) else []
    characters = {c for text in texts for c in text.get_text() if c.isprintable() and ord(c) > 127}
    found = {c: _font(c) for c in sorted(characters) if not _draws(_usual(), c)}
    fonts = sorted({font for font in found.values() if font})
    lacking = "".join(c for c, font in found.items() if font is None)

    def escaped(text: str) -> str:
        return "".join(_number(c) if c in lacking else c for c in text)

    for text in texts:
        text.set_parse_math(False)
        if fonts:
            text.set_fontfamily([*text.get_fontfamily(), *fonts])
        text.set_text(escaped(text.get_text()))
    if lacking:
        for axis in filter(_is_named, figure.findobj(Axis)):
            axis.set_major_formatter(FuncFormatter(_then(escaped, axis.get_major_formatter())))
        new = "".join(c for c in lacking if c not in _said)
        _said.update(new)
        if new:
            console().print(
                f"pictures: no font of this machine has {_few(new)}; drawn as numbers, such as "
                f"{_number(new[0])}. A font like Noto Sans CJK or Noto Emoji would have them.",
                markup=False,
            )
    figure.savefig(target, format="png", **options)


def _is_named(axis: Axis) -> bool:
    """Returns whether an axis has texts as tick labels, not numbers."""
    return isinstance(axis.get_major_formatter(), FuncFormatter | FixedFormatter)


def _numbers(axis: Axis) -> list[Text]:
    """Returns the tick labels of an axis of numbers, whose formulas are matplotlib's own."""
    return [] if _is_named(axis) else [*axis.get_ticklabels(which="both"), axis.get_offset_text()]


def _then(after: Callable[[str], str], before: Callable[..., str]) -> Callable[..., str]:
    return lambda value, position=None: after(before(value, position))


def _usual() -> str:
    """Returns the file of matplotlib's default font."""
    return font_manager.findfont(font_manager.FontProperties())


@functools.cache
def _draws(file: str, character: str) -> bool:
    try:
        font = FT2Font(file)
        if not font.get_char_index(ord(character)):
            return False
        font.set_size(12, 72)
        font.load_char(ord(character))  # fonts of coloured bitmaps cannot
    except (OSError, RuntimeError, ValueError):
        return False
    return True


@functools.cache
def _font(character: str) -> str | None:
    """Returns the name of a font of this machine that has a character."""
    upright = (
        f for f in font_manager.fontManager.ttflist if (f.style, f.weight) == ("normal", 400)
    )
    for font in sorted(upright, key=lambda font: font.name):
        if not font.name.startswith("Last Resort") and _draws(font.fname, character):  # has boxes
            return font.name
    return None


def _number(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _few(characters: str, most: int = 10) -> str:
    more = len(characters) - most
    return " ".join(characters[:most]) + (f" and {more} more" if more > 0 else "")
