"""Options of data and augmentation; imports no JAX, so that --help answers at once."""

import dataclasses
from typing import Literal

from research.config import option

Resize = Literal["pad", "letterbox", "stretch", "crop"]
Decode = Literal["full", "reduced"]
Normalisation = Literal["auto", "raw", "unit", "signed", "centred", "standardised", "whitened"]


AUTO = -1  # --batch_size=auto


@dataclasses.dataclass(frozen=True)
class CheckConfig:
    """The check of data, model and one step, --mode=check"""

    sample: int = option(
        0,
        "Examples of each split that are looked at, evenly spaced; 0: 128.",
        minimum=0,
        changes_result=False,
        saved=False,
        only=("check",),
    )
    thorough: bool = option(
        False,
        "Look at every example, look for near duplicates, and overfit one batch until its loss is "
        "near zero.",
        changes_result=False,
        saved=False,
        only=("check",),
    )
    show_duplicates: bool = option(
        False,
        "Name the near duplicates that --thorough finds.",
        changes_result=False,
        saved=False,
        only=("check",),
    )
    device_memory: str = option(
        "",
        "Memory of a device that a step is to fit into, 80GiB or 16GB; empty: that of the device "
        "at hand, or of --topology.",
        changes_result=False,
        saved=False,
        only=("check", "compile", "train"),
    )


@dataclasses.dataclass(frozen=True)
class DataConfig(CheckConfig):
    """Data"""

    dataset: str = option("", "Name of the data set, or folder:PATH; --mode=list shows all.")
    data_dir: str = option(
        "data",
        "Folder of prepared data sets (TFDS layout), here or at gs://... or s3://...",
        changes_result=False,
    )
    batch_size: int = option(
        128,
        "Examples a step, over all devices together; the default shrinks where a set has fewer. "
        "auto: the largest power of two whose step fits into a device's memory.",
        minimum=1,
        auto=AUTO,
    )
    eval_batch_size: int = option(
        0, "Examples a batch in evaluation; 0: as in training.", minimum=0, changes_result=False
    )
    validation: float = option(
        0.0,
        "Share of the training split held out, 0 to 0.9; it then chooses the best checkpoint.",
        minimum=0.0,
        maximum=0.9,
    )
    split_seed: int = option(
        0,
        "Draws the examples that are held out, for validation and for a test that the set lacks; "
        "0: evenly spaced. --seed has no part in it.",
        minimum=0,
        maximum=2**32 - 1,
    )
    fold: str = option(
        "",
        "I/K: the I-th of K parts of the training split is held out in the place of --validation's "
        "share; the K together are the whole split.",
    )
    cache_mb: int = option(
        1024,
        "Splits whose decoded size is below this many MiB are held decoded in memory.",
        minimum=0,
        changes_result=False,
    )
    workers: int = option(
        0, "Processes that decode images; 0: threads of this one.", minimum=0, changes_result=False
    )
    skip_corrupt: bool = option(False, "Leave files out that cannot be read, instead of stopping.")


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """Images"""

    image_size: int = option(
        0,
        "Side of the images that the model gets, pixels; 0: the data's, or else the model's own. "
        "Not given, for a set of your own: as its pictures say, docs/data.md.",
        minimum=0,
    )
    resize: Resize = option(
        "pad", "Way to bring other images to that size: with black borders, distorted, or cut."
    )
    decode: Decode = option(
        "full",
        "reduced decodes JPEGs at 1/2, 1/4 or 1/8 of their size, where that is no smaller than "
        "what the model gets: quicker, and pixels differ a little; full decodes all of them.",
    )
    input_normalisation: Normalisation = option(
        "auto",
        "Inputs of the network: 0..255 (raw), 0..1 (unit), -1..1 (signed); or as learned from the "
        "training split: without the mean, over the deviation too, or whitened; auto: as "
        "--init_from was trained, else standardised.",
    )


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Augmentation, training images only; 0 is off, draws are uniform between - and +"""

    mirror: bool = option(False, "Mirror left and right, half of the examples.")
    flip: bool = option(
        False, "Mirror top and bottom, half of the examples; for what has no upper side."
    )
    crop_padding: int = option(
        0, "Pixels of black added at each side before a crop of the old size.", minimum=0
    )
    rotation: float = option(0.0, "Largest rotation, degrees.", minimum=0.0)
    shear: float = option(
        0.0, "Degrees that vertical lines lean, at most.", minimum=0.0, maximum=80.0
    )
    scale: float = option(0.0, "Sizes from 1 - scale to 1 + scale.", minimum=0.0, maximum=0.95)
    shift: float = option(0.0, "Largest shift, as a share of width and height.", minimum=0.0)
    elastic_alpha: float = option(
        0.0, "Strength of local warps, as Simard et al. 2003 count it (34).", minimum=0.0
    )
    elastic_sigma: float = option(4.0, "Pixels over which local warps are smooth.", minimum=0.1)
    brightness: float = option(0.0, "Added to the values in 0..1, at most.", minimum=0.0)
    contrast: float = option(
        0.0, "Distances from the mean times 1 - contrast to 1 + contrast.", minimum=0.0
    )
    saturation: float = option(
        0.0, "Saturation times 1 - saturation to 1 + saturation.", minimum=0.0
    )
    hue: float = option(0.0, "Share of the colour circle.", minimum=0.0, maximum=0.5)
    pca_colour: float = option(
        0.0,
        "Standard deviation of PCA colour, as Krizhevsky et al. 2012 count it (0.1).",
        minimum=0.0,
    )
    cutout: float = option(
        0.0, "Side of the square taken out, as a share of the shorter side.", minimum=0.0
    )
    mixup: float = option(
        0.0, "Alpha of the Beta(alpha, alpha) that mixes pairs of examples (0.2).", minimum=0.0
    )


@dataclasses.dataclass(frozen=True)
class ObjectAugmentation(Augmentation):
    """Augmentation of images with boxes, training only"""

    mosaic: float = option(
        0.0, "Share of examples that are put together from four images.", minimum=0.0, maximum=1.0
    )
    visible: float = option(
        0.25,
        "Share of its area from which a box that is cut still counts as an object.",
        minimum=0.01,
        maximum=1.0,
    )
