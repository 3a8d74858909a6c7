"""Pictures hold a person's own class names as they are, whatever their characters."""

import io
from pathlib import Path

import matplotlib
import numpy as np
import PIL.Image
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

from research.figures import saving

USUAL = [font for font in font_manager.fontManager.ttflist if font.name == "DejaVu Sans"]


def figure(name):
    drawn = Figure(figsize=(3, 2))
    ax = drawn.subplots()
    ax.set_xticks([0, 1], [name, "b"])
    ax.set_title(name)
    ax.set_yscale("log")
    ax.set_ylim(1, 1000)
    return drawn


def pixels(drawn, save):
    buffer = io.BytesIO()
    save(drawn, buffer)
    buffer.seek(0)
    return np.asarray(PIL.Image.open(buffer))


def plainly(drawn, buffer):
    drawn.savefig(buffer, format="png")


@pytest.mark.parametrize("name", ["$10_$20", "$a$", "a_b^c", "100 $"])
def test_dollar_signs_are_no_formulas(name):
    drawn = figure(name)
    expected = figure("x")
    for text in (expected.axes[0].title, expected.axes[0].get_xticklabels()[0]):
        text.set_parse_math(False)
    expected.axes[0].set_title(name)
    expected.axes[0].xaxis.set_major_formatter(lambda value, _: [name, "b"][int(value)])
    np.testing.assert_array_equal(pixels(drawn, saving.save), pixels(expected, plainly))


def test_numbers_of_a_logarithmic_axis_stay_formulas():
    drawn = figure("a")
    np.testing.assert_array_equal(pixels(drawn, saving.save), pixels(figure("a"), plainly))


def test_characters_come_from_a_font_that_has_them(monkeypatch, capsys):
    # Of the fonts that come with matplotlib, DejaVu Sans lacks it. They are read from their files:
    # the list that matplotlib keeps in the user's cache may be of another environment.
    files = sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("DejaVu*.ttf"))
    shipped = [font_manager.ttfFontProperty(FT2Font(str(file))) for file in files]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", shipped)
    saving._font.cache_clear()
    drawn = figure("⌕")
    pixels(drawn, saving.save)
    assert "DejaVu Sans Mono" in drawn.axes[0].title.get_fontfamily()
    assert drawn.axes[0].title.get_text() == "⌕" and not capsys.readouterr().out


def test_characters_of_no_font_are_written_as_numbers_and_told_once(monkeypatch, capsys):
    monkeypatch.setattr(font_manager.fontManager, "ttflist", USUAL)
    monkeypatch.setattr(saving, "_said", set())
    saving._font.cache_clear()
    drawn = figure("猫 café 🐈")
    pixels(drawn, saving.save)
    assert drawn.axes[0].title.get_text() == r"\u732b café \U0001f408"
    drawn.canvas.draw()
    assert drawn.axes[0].get_xticklabels()[0].get_text() == r"\u732b café \U0001f408"
    (line,) = capsys.readouterr().out.splitlines()
    assert "no font of this machine has 猫 🐈; drawn as numbers, such as \\u732b" in line
    pixels(figure("猫"), saving.save)
    assert not capsys.readouterr().out
    saving._font.cache_clear()
