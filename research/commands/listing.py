"""--mode=list: experiments, presets, studies, models with parameter counts, data sets."""

import ast
import tomllib
from pathlib import Path

from rich.table import Column, Table

from research import models
from research.data import datasets
from research.record.progress import console


def summary(file: Path) -> str:
    """Reads what a file is for: the first line of a module's docstring, without an import, or of a
    preset's comment, or a study's question.
    """
    text = file.read_text()
    if file.suffix == ".toml":
        return tomllib.loads(text).get("question", "")
    if file.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return text.partition("\n")[0].lstrip("# ")


def show_list(experiments: Path, data_dir: str) -> None:
    """Prints what can be asked for, and with what."""
    out = console()
    table = Table(Column("experiment", overflow="fold"), "what is asked", box=None)
    for file in sorted(experiments.glob("[a-z]*.py")):
        table.add_row(f"--experiment={file.stem}", summary(file))
    table.add_row(
        "--experiment=path/to/mine.py", "One of your own, a file or a module my_lab.mine."
    )
    out.print(table, "")

    table = Table(Column("preset", overflow="fold"), "recipe", box=None)
    for file in sorted((experiments / "presets").rglob("*.flags")):
        table.add_row(f"--flagfile={file.relative_to(experiments.parent)}", summary(file))
    out.print(table, "")

    table = Table(Column("study", overflow="fold"), "question", box=None)
    for file in sorted((experiments / "presets" / "studies").glob("*.toml")):
        table.add_row(f"--mode=study --study={file.stem}", summary(file))
    out.print(table, "")

    table = Table("data set", Column("state", overflow="fold"), "content", box=None)
    for row in datasets.known(data_dir):
        table.add_row(*row)
    out.print(table, "")

    # Line by line: working out the shapes of all models takes a while.
    out.print(f"{'model':32}{'parameters':>13}  {'native image':15}  experiment", style="bold")
    counts: dict[str, int] = {}
    # Twins last within a task: their parameters are counted by then.
    known = models.available(task=None).items()
    for name, entry in sorted(known, key=lambda x: (x[1].task, x[1].twin != "", x[0])):
        size = f"{entry.image_size} x {entry.image_size} x {entry.channels}"
        counts[name] = counts.get(entry.twin) or models.count_parameters(entry)
        out.print(f"{f'--model={name}':32}{counts[name]:13,}  {size:15}  {entry.task}")
