"""Reports of worked examples: what they found as metrics, their steps as notes."""

from collections.abc import Callable

from rich.table import Column, Table

from research.course.config import WorkedExamplesConfig
from research.course.examples import EXAMPLES
from research.course.worked import Worked
from research.record.report import Report, metrics_report


def listed() -> Report:
    """Lists the examples, with their topics."""
    table = Table(Column("example", no_wrap=True), "what it shows", "topics", box=None)
    rows = [
        {"example": name, "summary": one.summary, "topics": one.topics}
        for name, one in EXAMPLES.items()
    ]
    for row in rows:
        table.add_row(f"--example={row['example']}", row["summary"], row["topics"])
    return Report(rows, table)


def of_one(config: WorkedExamplesConfig) -> Callable[[], Report]:
    """Works one example; returns what makes its report.

    Raises:
      UserError: for values that the example cannot take.
    """
    worked = EXAMPLES[config.example].load()(config)
    return lambda: _report({config.example: worked})


def of_all(config: WorkedExamplesConfig) -> Report:
    """Works every example; returns one report."""
    return _report({name: example.load()(config) for name, example in EXAMPLES.items()})


def _report(worked: dict[str, Worked]) -> Report:
    found = {f"{name}/{k}": v for name, one in worked.items() for k, v in one.found.items()}
    figures = {
        picture if len(worked) == 1 else f"{name}_{picture}": figure
        for name, one in worked.items()
        for picture, figure in one.draw().items()
    }
    notes = [line for one in worked.values() for text in one.steps for line in text.splitlines()]
    return metrics_report(
        {name: value for name, (value, _) in found.items()},
        {name.partition("/")[2]: meaning for name, (_, meaning) in found.items()},
        figures,
        notes,
    )
