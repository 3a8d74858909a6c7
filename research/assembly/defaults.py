"""Options that nobody chose, from a data set's counts and the sizes of its pictures.

Never from timing: the same set gives the same values on every machine. They travel among the facts,
under "taken", and stand in flags.txt and config.json, so that whatever goes on with a run, or
repeats it, has them.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from research import config as config_lib
from research.config import C
from research.data import datasets
from research.data.sources.examples import Examples, read_many
from research.data.sources.sampling import BatchOptions, order_of
from research.data.sources.splits import Dataset, Labelled
from research.experiment import Facts
from research.models import Entry
from research.record.progress import console
from research.spacing import some_of, spaced
from research.training.config import ImageTrainingConfig, TrainingConfig
from research.weights.trained import Trained

LOOKED_AT = 50  # training pictures whose sizes are read
MOST_WHOLE = 128  # pixels a side, where a network says something of the whole picture
MOST_PLACES = 224  # where it says what lies where: details are small
STEP, LEAST = 16, 32  # sides above LEAST are multiples of STEP


def taken(config: C, facts: Facts) -> C:
    """Returns the configuration with the values that training took for what nobody chose."""
    return config_lib.replace(config, facts.get("taken", {}))


def choose_batches(config: TrainingConfig, splits: Mapping[str, Labelled]) -> dict[str, Any]:
    """Chooses batches where nobody did and the default asks for more than the set holds.

    The largest power of two of training examples (of classes, where a batch is made of classes)
    that there are, in each of the parts of --accumulate; on one device, where several could not
    share it. Of evaluation, as many of these as hold its largest split. Prints what it takes.

    Raises:
      UserError: for a batch of classes that cannot be made.
    """
    found: dict[str, Any] = {}
    train = splits["train"]
    if "batch_size" in config.unchosen:
        if isinstance(config, BatchOptions):
            there, of_each = len(np.unique(train.labels)), config.images_per_class
            why = f"{there} classes, of which it takes --images_per_class={of_each} each"
        else:
            there, of_each = len(train) // config.accumulate, config.accumulate
            why = f"{len(train)} examples"
        if there * of_each < config.batch_size:
            size = found["batch_size"] = of_each * power_of_two(there)
            said = f"--batch_size={size} instead of {config.batch_size}: train has {why}"
            devices = jax.device_count()
            if config.parallel == "auto" and size % (devices * config.accumulate):
                found["parallel"] = "single"
                said += f"; on one device, as {devices} could not share it"
            console().print(said, markup=False)
    if isinstance(config, BatchOptions):
        order_of(config_lib.replace(config, found), train)
    size = found.get("batch_size", config.batch_size)
    largest = max((len(part) for name, part in splits.items() if name != "train"), default=1)
    enough = size * -(-largest // size)
    if "eval_batch_size" in config.unchosen and enough < config.eval_batch_size:
        found["eval_batch_size"] = enough
        console().print(
            f"--eval_batch_size={enough} instead of {config.eval_batch_size}: "
            f"{largest} examples at most are evaluated",
            markup=False,
        )
    return found


def power_of_two(most: int) -> int:
    """Returns the largest power of two that is no more than a number, but at least 1."""
    return 1 << (max(most, 1).bit_length() - 1)


def choose_size(
    config: ImageTrainingConfig,
    dataset: Dataset,
    train: Examples,
    entry: Entry,
    weights: Trained | None,
    most: int,
) -> dict[str, Any]:
    """Chooses the images' size of a person's own set where nobody did, by the rule of `side_of`.

    Not where the model has one size alone, and not for sets of others, which keep their own. Images
    that a set knows to be of one size, within `most`, keep it, their aspect ratio included. Weights
    of --init_from are for images of a size, which stands in the place of `most`, and is taken for
    all larger and mixed ones. Prints what it takes.

    Args:
      train: the training split, images at their own sizes.
      most: pixels of a side.
    """
    if (
        "image_size" not in config.unchosen
        or config.image_size
        or entry.fixed_size
        or not datasets.is_own(config.dataset)
    ):
        return {}
    most = most if weights is None else max(weights.preprocessing.image_size)
    height, width = dataset.image_shape[:2]
    if height is not None and width is not None and max(height, width) <= most:
        return {}
    if weights is not None:
        side, why = most, "the size of the images that the weights of --init_from are for"
    else:
        images = read_many(train, spaced(len(train), LOOKED_AT).tolist())
        cut = config.resize == "crop"  # to squares, of which the shorter sides say the size
        sides = [(min if cut else max)(example["image"].shape[:2]) for example in images]
        side = max(side_of(sides, most), entry.min_size)
        middle = int(np.median(sides))
        which = "shorter" if cut else "longer"
        why = f"the {which} sides of {some_of(len(train), LOOKED_AT)} are {middle} at the median"
        if side < middle:
            why += "; a larger one keeps more of them and takes longer"
    console().print(f"--image_size={side}: {why}", markup=False)
    return {"image_size": side}


def side_of(sides: list[int], most: int) -> int:
    """Returns the images' size for pictures with these sides: one rule for all experiments.

    These are their longer sides, or their shorter ones where images are cut to squares. Their
    median, so that half of them lose nothing; but `most` at most, for larger ones take longer than
    a first run should. Where pictures differ, down to a multiple of 16, so that a few more of them
    change nothing; below 32 pixels every one counts, and stays.
    """
    side = min(int(np.median(sides)), most)
    alike = len(set(sides)) == 1
    return side if alike or side < LEAST else side - side % STEP
