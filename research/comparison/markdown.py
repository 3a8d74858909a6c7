"""A comparison as Markdown: what was asked and declared, the command, the verdicts, the tables."""

from collections.abc import Mapping
from pathlib import Path

from research.comparison import tables
from research.comparison.declared import declared, title
from research.comparison.findings import Findings


def as_markdown(found: Findings, figures: Mapping[str, Path], command: str = "") -> str:
    """Returns a page that says all by itself.

    Args:
      figures: files of its pictures, beside the page.
      command: what made it; "" where nobody typed one.
    """
    parts = [f"# {title(found)}\n", _list(declared(found))]
    if command:
        parts.append(f"```bash\n{command}\n```\n")
    parts += ["## Verdicts\n", _list(found.lines)]
    parts.append(_list([f"{label}: {one.line}" for label, one in found.by_example.items()]))
    if "values" in figures:
        parts.append(f"![Every run's value, means and intervals]({figures['values'].name})\n")
    for table in tables.all_of(found):
        parts += [f"## {table.title[:1].upper()}{table.title[1:]}\n", tables.markdown(table)]
    if found.cautions:
        parts += ["## Warnings\n", _list(found.cautions)]
    return "\n".join(filter(None, parts))


def _list(lines: list[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)
