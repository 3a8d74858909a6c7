"""The plan of a run: epochs, and zeros that mean "choose for me", become steps."""

import math
from typing import NamedTuple

from research.errors import UserError
from research.training.config import LoopConfig

MOST_STEPS = 2**31 - 1


class Plan(NamedTuple):
    """The intervals and the length of a run, in steps."""

    steps: int
    eval_every: int
    checkpoint_every: int
    log_every: int


def make_plan(config: LoopConfig, num_examples: int, steps: int | None = None) -> Plan:
    """Resolves epochs, and zeros that mean "choose for me", into steps.

    Args:
      steps: replaces the configuration's number.

    Raises:
      UserError: for more steps than a counter of 32 bits holds.
    """
    if steps is None:
        epochs = config.epochs * num_examples / config.batch_size
        steps = config.steps or max(1, math.ceil(epochs))
    if steps > MOST_STEPS:
        raise UserError(
            f"--steps={config.steps}, --epochs={config.epochs:g}: are {steps:.3g} steps; "
            f"{MOST_STEPS:,} are counted."
        )
    eval_every = config.eval_every or math.ceil(steps / 5)
    return Plan(steps, eval_every, config.checkpoint_every or eval_every, config.log_every)
