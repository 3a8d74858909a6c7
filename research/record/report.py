"""Reports for a person: numbers, a table of them, pictures and notes."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import RenderableType
from rich.table import Table

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure


class Report(NamedTuple):
    """A report for a person, shown and saved.

    Attributes:
      rows: plain JSON values by column, as many columns in each.
      table: the columns that are shown on the console.
      figures: by file name without its ending. An image, uint8 [H, W, C], is saved pixel for pixel.
      notes: lines for a person: observations that are not numbers.
    """

    rows: Sequence[Mapping[str, Any]]
    table: RenderableType
    figures: Mapping[str, "Figure | np.ndarray"] = {}
    notes: Sequence[str] = ()


def metrics_report(
    metrics: Mapping[str, float],
    protocol: Mapping[str, str],
    figures: "Mapping[str, Figure | np.ndarray]",
    notes: Sequence[str] = (),
) -> Report:
    """Makes the report of metrics, a row each: "metric", "value" and "protocol".

    Args:
      metrics: by name, below the name of their split: "test/accuracy".
      protocol: how each is computed, by its name alone: "accuracy".
    """
    rows = [
        {"metric": name, "value": value, "protocol": protocol.get(name.partition("/")[2], "")}
        for name, value in metrics.items()
    ]
    return Report(rows, metrics_table(metrics, protocol), figures, notes)


def metrics_table(
    metrics: Mapping[str, float], protocol: Mapping[str, str], title: str | None = None
) -> Table:
    """Makes a short table of metrics that are not of single classes, each with its protocol."""
    table = Table("metric", "value", "protocol", title=title, box=None)
    for name, value in metrics.items():
        short = name.partition("/")[2]
        if "/" not in short:  # accuracy/cat stays in result.json
            table.add_row(name, f"{value:.4f}", protocol.get(short, ""))
    return table


def save_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes <path>.json, a list of objects, and <path>.csv, where NaN is empty."""
    plain = [{k: None if v != v else v for k, v in row.items()} for row in rows]  # NaN: no JSON
    path.with_suffix(".json").write_text(json.dumps(plain, indent=2) + "\n")
    save_csv(path.with_suffix(".csv"), plain)


def save_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a file of comma-separated values, as many columns in each row; NaN is empty."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: None if v != v else v for k, v in row.items()} for row in rows)
