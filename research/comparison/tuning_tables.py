"""A tuning for a person: its ranks, where to look next, and the best trial's flags as a file."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from research import config as config_lib
from research.comparison.tuning import Finer, Trial


def rows(trials: Sequence[Trial], metric: str) -> list[dict[str, Any]]:
    """Returns plain values of each trial, for tune.csv; what failed has no value.

    Args:
      trials: ranked.
    """
    return [
        {
            "rank": rank,
            "trial": trial.name,
            **trial.flags,
            metric: None if trial.failure else trial.value,
            "trained": trial.share,
            **trial.spent,
            "failure": trial.failure,
        }
        for rank, trial in enumerate(trials, 1)
    ]


def ranks(rows: Sequence[Mapping[str, Any]], flags: Sequence[str], metric: str) -> Table:
    """Makes the table of `rows`, with the share of its steps where a trial was left earlier."""
    halving = any(row["trained"] < 1 for row in rows if not row["failure"])
    last = ["trained", "seconds"] if halving else ["seconds"]
    table = Table("rank", "trial", *flags, metric, *last, box=None)
    for row in rows:
        table.add_row(
            str(row["rank"]),
            row["trial"],
            *(config_lib.show(row[flag]) for flag in flags),
            row["failure"].partition(";")[0] or f"{row[metric]:.4f}",
            *([f"{row['trained']:.2g}"] if halving else []),
            f"{row['seconds']:.1f}",
        )
    return table


def closer(found: Sequence[Finer]) -> Table:
    """Makes the coarse-to-fine table."""
    table = Table("flag", "searched", "best", "best quarter", "look next", box=None)
    for row in found:
        table.add_row(row.flag, row.searched, row.best, row.quarter, row.next)
    return table


def spent(trials: Sequence[Trial]) -> dict[str, float]:
    """Returns the steps, examples and seconds of all trials."""
    names = ("steps", "examples", "seconds")
    return {name: sum(trial.spent[name] for trial in trials) for name in names}


def best_flags(
    flags: Sequence[str], trials: Sequence[Trial], declared: Mapping[str, Any], earlier: int = 0
) -> str:
    """Returns the text of a flag file with the best trial's flags, and what its choice took.

    Args:
      flags: all that the best trial was given.
      trials: ranked.
      declared: the content of tune.json.
      earlier: the trials of coarser searches that this one follows.
    """
    kept = {flag.partition("=")[0]: flag for flag in flags}  # a trial's come after what it changes
    return "\n".join(
        [
            f"# The {_extreme(declared)} {declared['metric']}, {trials[0].value:.6g}: "
            f"{trials[0].name} of {question(declared)}",
            f"# Budget: {budget(trials)}",
            *(flag for name, flag in kept.items() if name != "--tuning_trials"),
            f"--tuning_trials={earlier + len(trials)}",
            "",
        ]
    )


def _extreme(declared: Mapping[str, Any]) -> str:
    return {"max": "highest", "min": "lowest"}[declared["mode"]]


def question(declared: Mapping[str, Any]) -> str:
    """Says what is searched and how, such as "grid search of 4 trials, optimizer=sgd,adam"."""
    how = {"random": "random search", "grid": "grid search", "halving": "successive halving"}
    where = "; ".join(f"{flag}={text}" for flag, text in declared["search"].items())
    return f"{how[declared['strategy']]} of {declared['asked']} trials, {where}"


def budget(trials: Sequence[Trial]) -> str:
    """Says what all trials took."""
    of = spent(trials)
    amounts = ", ".join(f"{value:,.0f} {name}" for name, value in of.items())
    return f"{len(trials)} trials, {amounts}"
