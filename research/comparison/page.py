"""The page of a comparison: verdicts, table, pictures, conditions, and how to repeat each run."""

import html
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from research.comparison import tables
from research.comparison.declared import declared, title
from research.comparison.examples import ByExample
from research.comparison.findings import Findings
from research.record.page import document, picture

SAID = {
    "values": "Every run's final value; the diamond is the mean, the line its 95 % interval. The "
    "stripe is what differs from the baseline by less than the smallest difference of interest.",
    "curves": "Means over the runs that finished, at steps that all of them logged, with one "
    "standard deviation to each side. A run that did not finish ends in a cross.",
    "costs": "A point a run, a larger mark a variant's mean.",
}


def make_page(found: Findings, figures: Mapping[str, Path], command: str) -> str:
    """Makes the page, as text. It holds its pictures and needs nothing else.

    Args:
      figures: files of "values", "curves" and "costs", as far as there are any, and of others.
      command: what made the page; "" where nobody typed one.
    """
    parts = [
        *(f"<p>{html.escape(line)}</p>" for line in declared(found)),
        *(f'<p class="verdict">{html.escape(line)}</p>' for line in found.lines),
        *(f'<p class="warning">{html.escape(line)}</p>' for line in found.cautions),
        tables.html_table(tables.variants(found)),
    ]
    if found.comparisons:
        parts.append(tables.html_table(tables.differences(found)))
    for name, heading in (
        ("values", "Every run"),
        ("curves", "Learning curves"),
        ("costs", "Cost and quality"),
    ):
        if name in figures:
            parts += [f"<h2>{heading}</h2><p>{SAID[name]}</p>", picture(heading, figures[name])]
    if found.by_example:
        said = [_examples(label, one, found) for label, one in found.by_example.items()]
        parts += ["<h2>Single examples</h2>", *said]
    for name in [name for name in figures if name not in SAID]:
        parts.append(f"<h3>{html.escape(name)}</h3>{picture(name, figures[name])}")
    parts.append("<h2>What differs</h2>")
    if found.conditions.flags:
        parts.append(tables.html_table(tables.flags(found)))
    else:
        parts.append("<p>No flag that changes results.</p>")
    parts += ["<h2>The runs, and the command that repeats each</h2>", _runs(found)]
    if command:
        parts.append(f"<h2>This page</h2><p><code>{html.escape(command)}</code></p>")
    return document(title(found), "".join(parts))


def _examples(label: str, one: ByExample, found: Findings) -> str:
    """Returns how many examples each side gets right, and those on which they part most."""
    other = found.baseline
    parts = [f"<p>{html.escape(f'{label}: {one.line}')}</p>"]
    if one.counts:
        both, ours, theirs, neither = (f"{count:,}" for count in one.counts)
        parts.append(
            tables.html_table(
                tables.Table(
                    ["majority of runs", f"{other} right", f"{other} wrong"],
                    [[f"{label} right", both, ours], [f"{label} wrong", theirs, neither]],
                )
            )
        )
    for better, apart in ((label, one.better), (other, one.worse)):
        if apart:
            rows = [
                [x.name or f"example {x.index}", f"{x.variant:.3g}", f"{x.baseline:.3g}"]
                for x in apart
            ]
            columns = [f"{better} does better on", label, other]
            parts.append(tables.html_table(tables.Table(columns, rows)))
    return "".join(parts)


def _runs(found: Findings) -> str:
    """Returns the table of all runs."""
    rows: list[Sequence[str]] = []
    for label, runs in found.sides.items():
        sample = found.samples[label]
        for run, number, value in zip(runs, sample.seeds, sample.values, strict=True):
            result = found.reason(run) or f"{value:.6g}"
            rows.append([label, f"{number}", result, repeat(str(run.folder))])
    columns = ["variant", found.repeats, found.chosen.name, "command"]
    return tables.html_table(tables.Table(columns, rows))


def repeat(folder: str) -> str:
    """Returns the command that repeats a run."""
    return f"python launch.py --flagfile={shlex.quote(f'{folder}/flags.txt')} --workdir=NEW"
