"""A comparison's tables, written once and shown four ways: terminal, Markdown, LaTeX, HTML."""

import html
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.table import Table as RichTable

from research.comparison.conditions import cost
from research.comparison.findings import Findings
from research.comparison.wording import digits

NOTHING = "-"
_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
}


class Table(NamedTuple):
    """Cells in words, as many in each row as there are columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


def variants(found: Findings) -> Table:
    """Returns a row for each side: its values, and the mean of what else is asked first."""
    unit = ", points" if found.metric.points else ""
    beside = [name for name in ("train/loss", "seconds") if name != found.chosen.name]
    columns = ["variant", "runs", f"{found.chosen.name}{unit}", "95 %", *beside]
    rows = []
    for label, runs in found.sides.items():
        one = found.summaries[label]
        finished = [run for run in runs if not run.failure]
        rows.append(
            [
                label,
                f"{one.n}" if one.n == one.runs else f"{one.n} of {one.runs}",
                _spread(one.mean, one.deviation, found.metric.points),
                _interval(digits(found.metric, one.low, one.high), one.low, one.high),
                *(
                    _mean([{**run.logged, **cost(run)}.get(name, math.nan) for run in finished])
                    for name in beside
                ),
            ]
        )
    return Table(columns, rows, "weights after the last step")


def differences(found: Findings) -> Table:
    """Returns a row for each difference to the baseline: its size, and every test of it."""
    several = len(found.comparisons) > 1
    columns = [
        f"against {found.baseline}",
        "difference",
        "95 %",
        "p (Holm)" if several else "p",
        "p, permuted",
        "p, equivalent",
        "P(better)",
        "pairs",
        "r",
    ]
    rows = []
    for label, one in found.comparisons.items():
        low, high = float(one.difference.low), float(one.difference.high)
        write = digits(found.metric, low, high)
        estimate, better = float(one.difference.estimate), one.superiority
        sign = "+" if estimate > 0 else ""
        range_of = f" ({better.low:.2f} to {better.high:.2f})" if better.low == better.low else ""
        rows.append(
            [
                label,
                f"{sign}{write(estimate)}" if math.isfinite(estimate) else NOTHING,
                _interval(write, low, high),
                _number(found.verdicts[label].p),
                _number(one.permutation),
                _number(one.equivalence),
                f"{better.estimate:.2f}{range_of}" if math.isfinite(better.estimate) else NOTHING,
                f"{one.n}" if one.pairs else "not paired",
                _number(float(one.difference.correlation)),
            ]
        )
    unit = ", points" if found.metric.points else ""
    return Table(columns, rows, f"differences of {found.chosen.name}{unit}")


def all_of(found: Findings) -> list[Table]:
    """Returns the tables of a comparison that have rows."""
    made = [variants(found), differences(found), flags(found)]
    return [table for table in made if table.rows]


def flags(found: Findings) -> Table:
    """Returns a row for each flag in which sides differ."""
    differing = found.conditions.flags
    rows = [
        [f"--{flag}", *(said.get(label, NOTHING) or "empty" for label in found.sides)]
        for flag, said in differing.items()
    ]
    return Table(["flag", *found.sides], rows, "flags that differ")


def rows_of_runs(found: Findings) -> list[dict[str, Any]]:
    """Returns a row for each run, of all its numbers: what compare.csv holds."""
    everyone = [run for runs in found.sides.values() for run in runs]
    names = sorted({name for run in everyone for name in run.numbers})
    costs = list(dict.fromkeys(name for run in everyone for name in cost(run)))
    return [
        {
            "variant": label,
            found.repeats: number,
            "run": str(run.folder),
            **{name: run.numbers.get(name, math.nan) for name in names},
            **{name: cost(run).get(name, math.nan) for name in costs},
            "failure": found.reason(run),
        }
        for label, runs in found.sides.items()
        for run, number in zip(runs, found.samples[label].seeds, strict=True)
    ]


def rich_table(table: Table) -> RichTable:
    """Returns a table for the terminal."""
    made = RichTable(*map(_escaped, table.columns), title=table.title or None, box=None)
    for row in table.rows:
        made.add_row(*map(_escaped, row))
    return made


def markdown(table: Table) -> str:
    """Returns the lines of a Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"

    rules = line(["---"] * len(table.columns))
    return line(table.columns) + rules + "".join(map(line, table.rows))


def latex(table: Table) -> str:
    r"""Returns a tabular; its rules are of the package booktabs."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(latex_text, cells)) + r" \\" + "\n"

    return (
        f"\\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}\n\\toprule\n"
        f"{line(table.columns)}\\midrule\n{''.join(map(line, table.rows))}"
        "\\bottomrule\n\\end{tabular}\n"
    )


def latex_text(text: str) -> str:
    """Returns text in which no character is a command."""
    return "".join(_LATEX.get(c, c) for c in text)


def html_table(table: Table) -> str:
    """Returns a <table>."""

    def line(cells: Sequence[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(c)}</{kind}>" for c in cells) + "</tr>"

    body = "".join(line(row, "td") for row in table.rows)
    return f'<table class="number">{line(table.columns, "th")}{body}</table>'


def _spread(mean: float, deviation: float, points: bool) -> str:
    if not math.isfinite(mean):
        return NOTHING
    scale = 100 if points else 1
    if not deviation > 0:  # none, or not known
        return f"{mean * scale:.4g}" + (" ± 0" if deviation == 0 else "")
    decimals = 1 - math.floor(math.log10(deviation * scale))  # two digits of the deviation
    if not 0 <= decimals < 7:
        return f"{mean * scale:.4g} ± {deviation * scale:.2g}"
    return f"{mean * scale:.{decimals}f} ± {deviation * scale:.{decimals}f}"


def _interval(write: Any, low: float, high: float) -> str:
    return f"{write(low)} to {write(high)}" if math.isfinite(low + high) else NOTHING


def _mean(values: Sequence[float]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    return f"{sum(finite) / len(finite):.3g}" if finite else NOTHING


def _number(value: float) -> str:
    return f"{value:.2g}" if math.isfinite(value) else NOTHING


def _escaped(cell: str) -> str:
    return cell.replace("[", "\\[")  # rich would read [bold] as a command
