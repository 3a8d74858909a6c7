"""One table, four ways: each is read back as what it is written for."""

import html.parser
import io
import re

from rich.console import Console
from run_folders import write_run

from research.comparison.findings import find
from research.comparison.runs import read_run
from research.comparison.tables import (
    Table,
    _spread,
    html_table,
    latex,
    markdown,
    rich_table,
    variants,
)

ODD = Table(["variant", "95 %"], [["a|b_[red]&c", "0.9 ± 0.1"], ["<i>", "p < 0.1 #1 \\x{y}~^$"]])


def test_markdown_keeps_every_cell():
    lines = markdown(ODD).splitlines()
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    cells = [[cell.strip().replace("\\|", "|") for cell in row] for row in cells]
    assert cells == [ODD.columns, ["---", "---"], *ODD.rows]


def test_html_keeps_every_cell_as_text():
    class Cells(html.parser.HTMLParser):
        def __init__(self):
            super().__init__()
            self.tags, self.texts = [], []

        def handle_starttag(self, tag, attrs):
            self.tags.append(tag)

        def handle_data(self, data):
            self.texts.append(data)

    read = Cells()
    read.feed(html_table(ODD))
    assert read.texts == [*ODD.columns, *ODD.rows[0], *ODD.rows[1]] and "i" not in read.tags


def test_latex_has_no_command_but_its_own():
    text = latex(ODD)
    body = text[text.index("\\midrule") + 8 : text.index("\\bottomrule")]
    assert "a|b\\_[red]\\&c & 0.9 $\\pm$ 0.1 \\\\" in body
    left = re.sub(
        r"\\(textbackslash|textasciitilde|textasciicircum)\{\}|\\[&%$#_{}]|\$[^$]*\$", "", body
    )
    left = left.replace("\\\\\n", "").replace(" & ", "")
    assert not set(left) & set("\\&%$#_{}~^")
    assert text.startswith("\\begin{tabular}{lr}\n\\toprule\nvariant & 95 \\% \\\\")


def test_the_terminal_shows_square_brackets():
    out = Console(file=io.StringIO(), width=100)
    out.print(rich_table(ODD))
    assert "a|b_[red]&c" in out.file.getvalue()


def test_a_spread_is_written_with_two_digits_of_the_deviation():
    assert _spread(0.93, 0.0064, points=True) == "93.00 ± 0.64"
    assert _spread(0.93, 0.0, points=True) == "93 ± 0"
    assert _spread(123.456, 23.4, points=False) == "123 ± 23"
    assert _spread(1234.56, 345.6, points=False) == "1235 ± 3.5e+02"
    assert _spread(0.93, float("nan"), points=True) == "93"
    assert _spread(float("nan"), float("nan"), points=True) == "-"


def test_the_loss_of_training_stands_beside_a_metric_once(tmp_path):
    run = read_run(write_run(tmp_path / "a", 0.9))
    for metric, columns in (
        ("test/accuracy", ["test/accuracy, points", "95 %", "train/loss", "seconds"]),
        ("train/loss", ["train/loss", "95 %", "seconds"]),
    ):
        table = variants(find({"a": [run]}, metric))
        assert table.columns == ["variant", "runs", *columns]
        assert [len(row) for row in table.rows] == [len(table.columns)]
        assert table.rows[0][table.columns.index("train/loss")] == "1"
