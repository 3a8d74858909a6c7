"""Worked examples: a lecture's small arrays, step by step, by the library's own functions.

    python launch.py --experiment=worked_examples --example=edges

slides edge filters over six by six numbers. --example=list shows all, with the topics of
docs/course that they belong to; --example=all works through every one.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from research.config import refuse_unused
from research.course.config import WorkedExamplesConfig
from research.course.examples import EXAMPLES, USED_BY
from research.errors import choose

if TYPE_CHECKING:
    from research.experiment import Look


@dataclasses.dataclass(frozen=True)
class Config(WorkedExamplesConfig):
    """Worked example"""


def build(config: Config, facts: Mapping[str, Any] | None = None) -> "Look":
    """Builds the look at one example, at all of them, or at their list.

    Raises:
      UserError: for an unknown example, flags without an effect on it, and values it cannot take.
    """
    from research.course import report
    from research.experiment import Look

    if config.example == "list":
        return Look(report.listed, kept=False)
    if config.example == "all":
        return Look(lambda: report.of_all(config))
    choose(config.example, EXAMPLES, "example")
    refuse_unused(config, "example", USED_BY)
    return Look(report.of_one(config))
