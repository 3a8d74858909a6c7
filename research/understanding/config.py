"""Options of looking into a network, by what uses them; imports no JAX, so --help answers at once.

Each class holds what the same methods use: `methods.METHODS` names the classes of each method. The
first line of a docstring is the heading in --help.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from research.config import Retiring, option, redefault
from research.data.config import DataConfig
from research.training.config import ParallelMode, RunConfig, TransferConfig, Untrained


@dataclasses.dataclass(frozen=True)
class Asked:
    """The question, and the network it is put to"""

    method: str = option("visualise", "Method of looking; --method=list explains each in one line.")
    checkpoint: tuple[str, ...] = option((), "Run whose network is looked into.")
    layer: str = option("", "Layer; empty: the classes'. --method=layers lists them.")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The question, and the network it is put to"""

    inputs: tuple[str, ...] = option((), "Images to look at or to start from: files and folders.")


@dataclasses.dataclass(frozen=True)
class Unit:
    """The question, and the network it is put to"""

    unit: int = option(-1, "Channel of --layer; -1: all of them.", minimum=-1)


@dataclasses.dataclass(frozen=True)
class ClassName:
    """The question, and the network it is put to"""

    class_: str = option(
        "",
        "Class by name or number, or word of a caption, instead of --layer and --unit. Empty: "
        "goose or the first class to visualise, and the most probable one of each input.",
    )


@dataclasses.dataclass(frozen=True)
class Place:
    """The question, and the network it is put to"""

    place: Literal["mean", "centre"] = option(
        "mean", "Place on a layer's map: the mean over all places, or the central unit alone."
    )


@dataclasses.dataclass(frozen=True)
class WorkingSize:
    """The question, and the network it is put to"""

    size: int = option(
        0,
        "Longer side of the image that is worked on, pixels; 0: what the network was trained on.",
        minimum=0,
    )
    original_size: bool = option(False, "dream, style: also save at the size of the input.")


@dataclasses.dataclass(frozen=True)
class QuestionConfig(WorkingSize, Place, ClassName, Unit, Inputs, Asked):
    """The options of a question, all together."""


@dataclasses.dataclass(frozen=True)
class Steps:
    """Optimising an image"""

    steps: int = option(0, "Steps of optimisation; 0: the method's own number.", minimum=0)
    learning_rate: float = option(0.0, "Step size; 0: the method's own.", minimum=0.0)


@dataclasses.dataclass(frozen=True)
class Start:
    """Optimising an image"""

    start: Literal["auto", "zeros", "noise", "input"] = option(
        "auto",
        "Start of visualise, invert and style: the mean image, noise on it, or --inputs; auto: "
        "--inputs, but the mean image without any, and for invert.",
    )


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """Optimising an image"""

    parameterisation: Literal["pixels", "fourier"] = option(
        "fourier", "Coordinates in which the image is optimised."
    )
    decorrelate: bool = option(True, "fourier: mix colours as in natural images.")
    l2: float = option(1e-4, "Weight of the squared norm of the image's coordinates.", minimum=0.0)
    blur_every: int = option(0, "pixels: steps between Gaussian blurs; 0: none.", minimum=0)
    blur_sigma: float = option(1.0, "Standard deviation of the blur, pixels.", minimum=0.1)
    clip_norms: float = option(
        0.0, "pixels: share with the smallest norm set to 0.", minimum=0.0, maximum=1.0
    )
    clip_gradients: float = option(
        0.0, "pixels: share with the smallest gradient set to 0.", minimum=0.0, maximum=1.0
    )
    clip_contributions: float = option(
        0.0,
        "pixels: share that contributes least, gradient times pixel, set to 0.",
        minimum=0.0,
        maximum=1.0,
    )
    clip_every: int = option(1, "pixels: steps between such clips.", minimum=1)


@dataclasses.dataclass(frozen=True)
class TotalVariation:
    """Optimising an image"""

    total_variation: float = option(
        0.0, "Weight of the total variation of the image / 255.", minimum=0.0
    )


@dataclasses.dataclass(frozen=True)
class Jitter:
    """Optimising an image"""

    jitter: int = option(
        -1, "Pixels by which the image is shifted at random, at most; -1: side / 28.", minimum=-1
    )


@dataclasses.dataclass(frozen=True)
class Solver:
    """Optimising an image"""

    solver: Literal["adam", "lbfgs"] = option("adam", "style, invert: Adam or L-BFGS.")


@dataclasses.dataclass(frozen=True)
class Style:
    """Optimising an image"""

    style: str = option("", "style: file of the picture whose style is taken.")
    style_layers: tuple[str, ...] = option(
        (), "style: layers of the style, LAYER or with a weight LAYER:0.5; empty: the method's."
    )
    style_weight: float = option(1.0, "style: beta, weight of the style loss.", minimum=0.0)
    content_weight: float = option(1e-3, "style: alpha, weight of content.", minimum=0.0)


@dataclasses.dataclass(frozen=True)
class Octaves:
    """Optimising an image"""

    octaves: int = option(3, "dream: sizes worked through, from small to full.", minimum=1)
    octave_scale: float = option(1.4, "dream: ratio of two sizes.", minimum=1.01)


@dataclasses.dataclass(frozen=True)
class Change:
    """Optimising an image"""

    epsilon: float = option(
        0.0,
        "fgsm, pgd: largest change; smallest: largest tried. Values are 0..255. 0: 2 and 64, and "
        "for --norm=l2 200 and 5000.",
        minimum=0.0,
    )
    norm: Literal["linf", "l2"] = option(
        "linf", "Measure of changes: the largest of a value, or Euclidean."
    )


@dataclasses.dataclass(frozen=True)
class PictureConfig(
    Change, Octaves, Style, Solver, Jitter, TotalVariation, Coordinates, Start, Steps
):
    """The options of optimising an image, all together."""


@dataclasses.dataclass(frozen=True)
class Samples:
    """Looking at an image or a data set"""

    samples: int = option(
        0,
        "smooth_grad, smooth_saliency: noisy copies, 0: 32; integrated_gradients: points, 0: as "
        "many, up to 864, as bring completeness_gap below 1 %.",
        minimum=0,
    )


@dataclasses.dataclass(frozen=True)
class Noise:
    """Looking at an image or a data set"""

    noise: float = option(
        0.15, "smooth_grad, smooth_saliency: deviation, as a share of the range.", minimum=0.0
    )


@dataclasses.dataclass(frozen=True)
class Occlusion:
    """Looking at an image or a data set"""

    patch: int = option(0, "occlusion: side of the patch, pixels; 0: a sixth.", minimum=0)
    stride: int = option(0, "occlusion: pixels between patches; 0: half a patch.", minimum=0)
    chunk: int = option(16, "occlusion: copies worked on at once.", minimum=1, changes_result=False)


@dataclasses.dataclass(frozen=True)
class Count:
    """Looking at an image or a data set"""

    count: int = option(9, "Patches or neighbours shown for each unit or image.", minimum=1)


@dataclasses.dataclass(frozen=True)
class Seeds:
    """Looking at an image or a data set"""

    seeds: Literal["saliency", "grad_cam"] = option(
        "saliency", "segmentation: map whose highest values GrabCut takes for the object."
    )


@dataclasses.dataclass(frozen=True)
class Explained:
    """Looking at an image or a data set"""

    explain: Literal["", "saliency", "guided_backpropagation"] = option(
        "", "patches: show below each patch what in it excites the unit, by this gradient."
    )


@dataclasses.dataclass(frozen=True)
class Plane:
    """Looking at an image or a data set"""

    map: Literal["pca", "tsne"] = option("pca", "map: how features become two coordinates.")


@dataclasses.dataclass(frozen=True)
class LookConfig(Plane, Seeds, Explained, Count, Occlusion, Noise, Samples):
    """The options of looking at an image or a data set, all together."""


@dataclasses.dataclass(frozen=True)
class InputOptimizationConfig(
    LookConfig, PictureConfig, QuestionConfig, RunConfig, Untrained, Retiring
):
    """Input optimisation"""

    # Flags of training, which had no effect; runs that earlier versions made hold them.
    RETIRED: ClassVar[Mapping[str, Any]] = {
        "dataset": "",
        "validation": 0.0,
        "skip_corrupt": False,
        "eval_batch_size": 0,
        "cache_mb": 1024,
        "workers": 0,
        "precision": "float32",
        "epochs": 10.0,
        "optimizer": "adamw",
        "schedule": "cosine",
        "warmup": 0.05,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "clip_norm": 0.0,
        "accumulate": 1,
        "statistics_batches": 0,
        "ema_decay": 0.0,
        "freeze": "",
        "transfer_rate": 1.0,
    }

    data_dir: str = redefault(DataConfig, "data_dir", "data")
    batch_size: int = redefault(DataConfig, "batch_size", 32)
    init_from: str = redefault(TransferConfig, "init_from", "")
    init_as: str = redefault(TransferConfig, "init_as", "")
    model: str = option("", "Architecture, where --init_from is a file.")
    # One image has nothing to share out over devices.
    parallel: ParallelMode = redefault(RunConfig, "parallel", "single")
