"""Marked rows of docs/results.md: what they ask for, and what bears them out."""

import re
from pathlib import Path

import pytest

from research.comparison import stated
from research.errors import UserError

PAGE = Path(__file__).resolve().parents[3] / "docs" / "results.md"


def test_the_page_of_results_has_cheap_rows():
    rows = stated.read_stated(PAGE)
    assert len(rows) >= 3 and len({row.name for row in rows}) == len(rows)
    text = PAGE.read_text()
    for row in rows:
        assert 0 < row.tolerance < 0.05 * row.value
        # The row shows the number that its mark holds, as it is or in per cent.
        (line,) = (x for x in text.splitlines() if f"<!-- again: {row.name} " in x)
        shown = [float(x) for x in re.findall(r"\d+\.\d+", re.sub("<!--.*?-->", "", line))]
        assert row.value in shown or any(abs(x / 100 - row.value) < 1e-12 for x in shown)


def page(tmp_path, *rows):
    (tmp_path / "page.md").write_text("\n".join(["# Results", "| a | b |", *rows]))
    return stated.read_stated(tmp_path / "page.md")


def test_a_mark_and_the_command_of_its_row(tmp_path):
    row = (
        "| x | `python launch.py --a=1 --b='c d'` | 0.990 <!-- again: x t/m 0.990 within 0.005 -->"
    )
    (found,) = page(tmp_path, row, "| y | `python launch.py --a=2` | 1 |")
    assert found == ("x", ("--a=1", "--b=c d"), "t/m", 0.99, 0.005)
    for measured, holds in ((0.985, True), (0.995, True), (0.9849, False), (0.9951, False)):
        assert found.holds(measured) == holds
    assert not found.holds(None) and not found.holds(float("nan"))


@pytest.mark.parametrize(
    "row",
    [
        "| 0.9 <!-- again: x t/m 0.9 within 0.1 -->",  # no command
        "| `python launch.py --a=1` <!-- again: x t/m 0.9 -->",
        "| `python launch.py --a=1` <!-- again: x t/m high within 0.1 -->",
    ],
)
def test_a_mark_that_is_none_is_named_by_its_line(tmp_path, row):
    with pytest.raises(UserError, match=r"page.md, line 3: a mark and its command"):
        page(tmp_path, row)


def test_rows_are_chosen_by_name(tmp_path):
    rows = page(
        tmp_path,
        *(f"`python launch.py` <!-- again: {name} m 1 within 0.1 -->" for name in ("one", "two")),
    )
    assert [row.name for row in stated.choose(rows, ("all",))] == ["one", "two"]
    assert [row.name for row in stated.choose(rows, ("two",))] == ["two"]
    with pytest.raises(UserError, match=r"--results=tow: .* one, two\. Did you mean 'two'"):
        stated.choose(rows, ("tow",))
    with pytest.raises(UserError, match=r"none\.md is not there"):
        stated.read_stated(tmp_path / "none.md")
