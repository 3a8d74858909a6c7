"""Input optimisation: looks into a trained network, with images optimised by gradients too.

    python launch.py --experiment=input_optimization

makes, from a grey image, the goose that EfficientNet-Lite0 is sure of; its weights ship inside a
package.
    --method=list explains every method, --method=layers lists the network's layers.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from experiments import open_trained
from research.config import refuse_unused
from research.errors import UserError, choose
from research.modes import Modes
from research.understanding.config import InputOptimizationConfig
from research.understanding.methods import METHODS, USED_BY

if TYPE_CHECKING:
    from research.experiment import Experiment, Look
    from research.understanding.opening import TrainedNetwork


@dataclasses.dataclass(frozen=True)
class Config(InputOptimizationConfig):
    """Input optimisation"""


def opened(config: Config) -> "TrainedNetwork":
    """Opens the network that a configuration names."""
    from research.understanding import opening

    return opening.opened(config, open_trained)


def build(config: Config, facts: Mapping[str, Any] | None = None) -> "Experiment | Look":
    """Builds the method: an experiment that optimises an image, or a look at the network.

    Raises:
      UserError: names that are unknown, and methods that do not apply to the network.
    """
    from research.experiment import Look
    from research.understanding.opening import check_flags
    from research.understanding.question import ask

    method = choose(config.method, METHODS, "method")
    check_flags(config)
    refuse_unused(config, "method", USED_BY)
    if config.parallel != "single" and method.kind != "survey":
        raise UserError(
            f"--parallel={config.parallel}: --method={config.method} runs on one device; leave the "
            "flag out."
        )
    answer = method.load()
    if method.kind == "list":
        return Look(lambda: answer(lambda: opened(config).network), kept=False)
    question = ask(config, opened(config))
    if method.kind == "optimise":
        experiment: Experiment = answer(question)
        return experiment
    return Look(answer(question))


def gallery(config: Config) -> Callable[[], str]:
    """Returns what makes one HTML page of all methods that apply to the network.

    Raises:
      UserError: if there is nothing to show.
    """
    from research.understanding.opening import check_flags
    from research.understanding.page import make_page
    from research.understanding.question import ask

    check_flags(config)
    shown = dataclasses.replace(config, method="saliency")
    ask(shown, opened(shown)).needs_inputs()
    return functools.partial(make_page, config, build)


MODES = Modes(pages={"gallery": gallery})
