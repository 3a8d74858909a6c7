"""Opens the network that is looked into: of a run, of a package or of a file of weights."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax

from research import config as config_lib
from research import models, weights
from research.data.images.preprocessing import Preprocessing
from research.data.sources import overlap
from research.errors import UserError, choose
from research.experiment import Data, Experiment
from research.record.progress import console
from research.training.checkpoint import open_checkpoint
from research.understanding.config import InputOptimizationConfig
from research.understanding.network import ImageNetwork
from research.weights.pretrained import PRETRAINED

NETWORK = "efficientnet_lite0"  # where neither --checkpoint nor --init_from is given
# (description of a checkpoint, where it lies) -> the module of the experiment that trained it.
OpenModule = Callable[[Mapping[str, Any], Path], ModuleType]


class TrainedNetwork(NamedTuple):
    """A trained network, and the experiment that trained it if one did."""

    network: ImageNetwork
    preprocessing: Preprocessing
    source: Experiment | None


@functools.lru_cache(maxsize=2)
def open_network(
    checkpoint: tuple[str, ...],
    init_from: str,
    init_as: str,
    model: str,
    data_dir: str,
    state: object,
    open_module: OpenModule,
) -> TrainedNetwork:
    """Opens the network of --checkpoint or --init_from; kept for methods that are asked in turn.

    Args:
      state: of the files they name, as `files_state` has it: where they change, it is opened anew.
      open_module: the module of the experiment that trained a network.

    Raises:
      UserError: what cannot be opened, or holds no network that sees images.
    """
    if checkpoint:
        if len(checkpoint) > 1:
            raise UserError("--checkpoint: one network is looked into at a time.")
        found = open_checkpoint(checkpoint[0])
        name, facts = found.metadata["experiment"], found.metadata["facts"]
        if "preprocessing" not in facts:
            raise UserError(
                f"--checkpoint={checkpoint[0]}: is a run of {name}, which trained no network that "
                "sees images."
            )
        module = open_module(found.metadata, found.path)
        config = config_lib.from_json(module.Config, found.metadata["config"], str(found.path))
        config = dataclasses.replace(config, data_dir=data_dir)
        variables = found.variables
        recalled = overlap.recall(found.path, facts)
    elif init_from in PRETRAINED and not PRETRAINED[init_from].class_names():
        known = PRETRAINED[init_from]
        trunk, preprocessing = models.create(known.model), known.preprocessing
        own = (*preprocessing.image_size, preprocessing.channels)
        shapes = jax.eval_shape(
            lambda key, image: trunk.init(key, image, features=True),
            jax.random.key(0),
            jax.ShapeDtypeStruct((1, *own), "float32"),
        )
        variables = weights.into(shapes, weights.load(init_from), source=init_from).variables

        def maps(variables: Any, images: Any) -> Any:
            return trunk.apply(variables, preprocessing.standardise(images), features=True)

        return TrainedNetwork(
            ImageNetwork(maps, jax.device_put(variables), (), own), preprocessing, None
        )
    else:
        if init_from not in PRETRAINED:
            choose(model or "(none)", models.available(), "model: name --model for a file;")
        module = open_module({"experiment": "classification"}, Path())
        config = module.Config(init_from=init_from, init_as=init_as, model=model or "convnet")
        config, facts, variables = module.pretrained(config)

    source = module.build(config, facts)
    preprocessing = Preprocessing.from_json(facts["preprocessing"])

    def outputs(variables: Any, images: Any) -> Any:
        return source.evaluation.predict(variables, {"image": images})

    shape = (*preprocessing.image_size, preprocessing.channels)
    names = source.network.names
    network = ImageNetwork(
        outputs,
        jax.device_put(variables),
        names.of,
        shape,
        class_layer=f"outputs/{names.output}" if names.of and names.output else "",
        exclusive=names.exclusive,
    )
    if not checkpoint:
        return TrainedNetwork(network, preprocessing, None)

    @functools.cache
    def unseen() -> Data:
        data, report = overlap.new_only(source.data(), *recalled)
        for line in overlap.lines(report):
            console().print(line, markup=False)
        return data

    return TrainedNetwork(network, preprocessing, source._replace(data=unseen))


def opened(config: InputOptimizationConfig, open_module: OpenModule) -> TrainedNetwork:
    """Opens the network that a configuration names."""
    init_from = "" if config.checkpoint else (config.init_from or NETWORK)
    state = files_state([*config.checkpoint, init_from])
    names = config.checkpoint, init_from, config.init_as, config.model, config.data_dir
    return open_network(*names, state, open_module)


def files_state(names: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """Lists each file below some paths, with its size and when it was last changed."""
    found = []
    for path in (Path(name).expanduser() for name in names if name):
        files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
        found += [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return tuple(found)


def check_flags(config: InputOptimizationConfig) -> None:
    """Raises UserError for flags of the network that contradict others."""
    if config.checkpoint and config.init_from:
        raise UserError("--init_from: --checkpoint names a network already; leave one out.")
    if config.model and (config.checkpoint or config.init_from in (*PRETRAINED, "")):
        raise UserError("--model: is for --init_from=FILE; the network named here has its own.")
    if config.init_as and (config.checkpoint or config.init_from in (*PRETRAINED, "")):
        raise UserError("--init_as: is for --init_from=FILE; leave it out.")
