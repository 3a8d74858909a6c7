"""The plan of a run: epochs, and zeros that mean "choose for me", become steps."""

import math
from typing import NamedTuple

from research.data.config import DataConfig, ImageConfig
from research.data.datasets import is_own
from research.errors import UserError
from research.training.config import LoopConfig

MOST_STEPS = 2**31 - 1
LONG = 30 * 60  # seconds from which a person hears how long a run will take
TIMED = 10  # steps that are timed for it, after the first


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


def last_step(config: LoopConfig, plan: Plan) -> int:
    """Returns the step after which a run is left: its last one, or the share of --stop_after."""
    return max(1, round(config.stop_after * plan.steps))


def long_run(config: LoopConfig, seconds: float) -> str:
    """Says how long a run on a person's own data will take, and what shortens it, if that is long.

    Only says: what is computed never depends on time. "" for other data, and for short runs.

    Args:
      seconds: that the steps to come take, evaluations not counted.
    """
    if not isinstance(config, DataConfig) or not is_own(config.dataset) or seconds <= LONG:
        return ""
    flag, now = ("steps", config.steps) if config.steps else ("epochs", config.epochs)
    size = " or --image_size" if isinstance(config, ImageConfig) else ""
    return (
        f"the steps to come take about {seconds / 3600:.1f} h, without evaluations; a smaller "
        f"--{flag} (now {now:g}){size} shortens it"
    )
