"""Reads trained weights and converts them to the conventions of the models here."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from research.data.images.preprocessing import Preprocessing
from research.data.sources.contents import Digests
from research.data.sources.overlap import recall
from research.errors import UserError, choose
from research.models import Entry, available
from research.record.progress import console
from research.remote.store import is_remote
from research.training.checkpoint import Opened, open_checkpoint
from research.training.config import TransferConfig
from research.weights import PRETRAINED, load
from research.weights.naming import out_of
from research.weights.origin import Origin, origin_of
from research.weights.timm import with_epsilon

EPSILON = 1e-5  # of batch normalisation, in models that do not say


class Trained(NamedTuple):
    """The trained weights that --init_from names.

    Attributes:
      source: the name or path itself, for messages.
      tensors: by torchvision's or timm's names; of a run of one's own, by those of its model.
      preprocessing: of the images they were trained on.
    """

    source: str
    tensors: Mapping[str, np.ndarray]
    preprocessing: Preprocessing


def open_trained(
    init_from: str, model: str, init_as: str = "", attributes: Mapping[str, Any] | None = None
) -> Trained:
    """Reads weights for the classifier called `model`, and prints their assumed origin.

    Args:
      init_from: a file or name for `research.weights.load`, or the folder of a run or checkpoint.
      init_as: timm's name of their network, if the file does not tell it.
      attributes: of the model, where they differ from its defaults.

    Raises:
      UserError: weights that are unknown, damaged, or of another network.
    """
    if is_run(init_from):
        if init_as:
            raise UserError("--init_as: is for files of timm's; a run says what it holds.")
        opened = _opened(init_from)
        kept = Preprocessing.from_json(opened.metadata["facts"]["preprocessing"])
        said = opened.metadata["config"].get("model", opened.metadata["experiment"])
        console().print(f"{init_from}: weights of {opened.path}, a {said}", markup=False)
        return Trained(init_from, out_of(opened.variables), kept)
    tensors: Mapping[str, np.ndarray] = load(init_from)
    if init_from in PRETRAINED:
        return Trained(init_from, tensors, PRETRAINED[init_from].preprocessing)
    entry = choose(model, available(task=None), "model")
    origin = origin_of(Path(init_from), tensors, model, entry, init_as)
    found = origin.preprocessing
    console().print(f"{init_from}: weights of {origin.said}; {describe(found)}", markup=False)
    tensors = in_conventions_of(entry.make(parent=None, **(attributes or {})), tensors, origin)
    return Trained(init_from, tensors, found)


def is_run(init_from: str) -> bool:
    """Returns whether --init_from names the folder of a run or of a checkpoint."""
    if is_remote(init_from):
        return True
    return init_from not in ("", *PRETRAINED) and Path(init_from).is_dir()


@functools.lru_cache(maxsize=2)
def _opened(run: str) -> Opened:
    try:
        opened = open_checkpoint(run)
    except UserError as error:
        raise UserError(str(error).replace("--checkpoint=", "--init_from=")) from None
    if "preprocessing" not in opened.metadata["facts"]:
        raise UserError(f"--init_from={run}: is of a network that takes no images.")
    return opened


def channels_of(init_from: str, entry: Entry) -> int:
    """Returns the image channels that the weights of --init_from take, for a model's entry."""
    if is_run(init_from):
        return int(_opened(init_from).metadata["facts"]["preprocessing"]["channels"])
    return entry.channels


def trained_on(init_from: str) -> tuple[Digests | None, str]:
    """Returns the trained pictures of --init_from's run, as `overlap.recall`; none for files."""
    if not is_run(init_from):
        return frozenset(), ""
    opened = _opened(init_from)
    return recall(opened.path, opened.metadata["facts"])


def in_conventions_of(
    module: nn.Module, tensors: Mapping[str, np.ndarray], origin: Origin
) -> Mapping[str, np.ndarray]:
    """Converts tensors to give the same outputs in this module as in their own network."""
    ours = vars(module).get("epsilon", EPSILON)
    if origin.epsilon in (None, ours):
        return tensors
    return with_epsilon(tensors, origin.epsilon, ours)


def of_config(
    config: TransferConfig, model: str, attributes: Mapping[str, Any] | None = None
) -> Trained | None:
    """Opens the weights of --init_from and --init_as for the classifier `model`; None without them.

    Raises:
      UserError: as `open_trained` does; and for --init_as with a name, which needs none.
    """
    if config.init_as and config.init_from in ("", *PRETRAINED):
        raise UserError("--init_as: is for --init_from=FILE; leave it out.")
    if not config.init_from:
        return None
    return open_trained(config.init_from, model, config.init_as, attributes)


def describe(preprocessing: Preprocessing) -> str:
    """Describes in words the images that these weights were trained on."""
    side = preprocessing.image_size[0]
    how = {"crop": f"the middle of {round(side / preprocessing.crop_share)}"}
    mean, std = (
        ", ".join(f"{x:.4g}" for x in dict.fromkeys(values))
        for values in (preprocessing.mean, preprocessing.std)
    )
    return (
        f"images of {side} pixels ({how.get(preprocessing.resize, preprocessing.resize)}, "
        f"{preprocessing.interpolation}), mean {mean}, deviation {std}"
    )
