"""What does a trained network see? Images optimised by gradients, and a look inside.

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
from research.config import option, redefault, refuse_unused
from research.errors import UserError, choose
from research.modes import Modes
from research.training.config import ParallelMode, TrainingConfig
from research.understanding.config import LookConfig, PictureConfig, QuestionConfig
from research.understanding.methods import METHODS, USED_BY

if TYPE_CHECKING:
    from research.experiment import Experiment, Look
    from research.understanding.opening import Opened

# Of the flags that experiments share, those that are about training a network.
NOT_HERE = (
    *("dataset", "validation", "skip_corrupt", "epochs", "optimizer", "schedule", "warmup"),
    *("momentum", "weight_decay", "clip_norm", "accumulate", "ema_decay", "precision"),
    *("freeze", "transfer_rate"),
)


@dataclasses.dataclass(frozen=True)
class Config(LookConfig, PictureConfig, QuestionConfig, TrainingConfig):
    """Input optimisation"""

    model: str = option("", "Architecture, where --init_from is a file.")
    batch_size: int = redefault(TrainingConfig, "batch_size", 32)
    # One image has nothing to share out over devices.
    parallel: ParallelMode = redefault(TrainingConfig, "parallel", "single")


def opened(config: Config) -> "Opened":
    """The network that a configuration names."""
    from research.understanding import opening

    return opening.opened(config, open_trained)


def check_flags(config: Config) -> None:
    """Raises UserError for flags that have no effect, or that contradict others."""
    from research.understanding import opening

    for field in dataclasses.fields(config):
        if field.name in NOT_HERE and getattr(config, field.name) != field.default:
            raise UserError(
                f"--{field.name}: is about training networks, and has no effect here; leave it out."
            )
    opening.check_flags(config)


def build(config: Config, facts: Mapping[str, Any] | None = None) -> "Experiment | Look":
    """The method: an experiment where an image is optimised, the network frozen; else a look.

    Raises:
      UserError: names that are unknown, and methods that do not apply to the network.
    """
    from research.experiment import Look
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
      UserError: where there is nothing to show.
    """
    from research.understanding.gallery import make_gallery
    from research.understanding.question import ask

    check_flags(config)
    shown = dataclasses.replace(config, method="saliency")
    ask(shown, opened(shown)).needs_inputs()
    return functools.partial(make_gallery, config, build)


MODES = Modes(pages={"gallery": gallery})
