"""What a mode of an experiment's own gives back: numbers, a table of them, and pictures."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Report(NamedTuple):
    """What is shown and saved.

    Attributes:
      rows: plain JSON values by column, as many columns in each.
      table: what of them a person reads on the console.
      figures: by file name without its ending.
    """

    rows: Sequence[Mapping[str, Any]]
    table: Table
    figures: "Mapping[str, Figure]"


def save_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes <path>.json, a list of objects, and <path>.csv; what is no number there is empty."""
    plain = [{k: None if v != v else v for k, v in row.items()} for row in rows]  # NaN: no JSON
    path.with_suffix(".json").write_text(json.dumps(plain, indent=2) + "\n")
    with open(path.with_suffix(".csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(plain)
