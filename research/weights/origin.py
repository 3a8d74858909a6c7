"""Finds the origin of a file's weights: their preprocessing, and details of their network.

timm's EfficientNets and MobileNet-v3s come in two kinds under the same tensors' names: trained in
PyTorch, and (tf_...) brought over from TensorFlow, with its padding and its epsilon. Neither is
torchvision's in all. They are distinguished, in this order, by the config.json that timm puts
beside weights, by --init_as, and by a file's or folder's name as timm publishes it.
"""

import dataclasses
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from research.data.config import Resize
from research.data.files import read_json
from research.data.images.preprocessing import Preprocessing
from research.errors import UserError, choose
from research.models import Entry

# On the scale 0..255: of ImageNet's pixels, and of inputs from -1 to 1.
IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
HALF = {"mean": (127.5,) * 3, "std": (127.5,) * 3}


def evaluation(
    side: int, resized: int = 256, interpolation: Any = "bicubic", values: Any = IMAGENET
) -> Preprocessing:
    """Resizes an image's shorter side to `resized` pixels, and crops its middle, side x side."""
    return Preprocessing(
        (side, side),
        resize="crop",
        interpolation=interpolation,
        crop_share=side / resized,
        **values,
    )


_USUAL = evaluation(224, 256, "bilinear")
# Model -> torchvision's preprocessing for its weights IMAGENET1K_V1. GoogLeNet and Inception-v3
# change their input themselves (transform_input).
TORCHVISION: Mapping[str, Preprocessing] = {
    **dict.fromkeys(("alexnet", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"), _USUAL),
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101"), _USUAL),
    **dict.fromkeys(("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"), _USUAL),
    "googlenet": evaluation(224, 256, "bilinear", HALF),
    "inception_v3": evaluation(299, 342, "bilinear", HALF),
    "efficientnet_b0": evaluation(224, 256),
    "efficientnet_b1": evaluation(240, 256),
    "efficientnet_b2": evaluation(288, 288),
    "efficientnet_b3": evaluation(300, 320),
    "efficientnet_b4": evaluation(380, 384),
    "efficientnet_b5": evaluation(456, 456),
    "efficientnet_b6": evaluation(528, 528),
    "efficientnet_b7": evaluation(600, 600),
}
# The end of the file's name, a part of its SHA-256 -> the same for weights IMAGENET1K_V2.
TORCHVISION_SECOND: Mapping[str, Preprocessing] = {
    **dict.fromkeys(
        ("resnet50-11ad3fa6", "resnet101-cd907fc2", "mobilenet_v2-7ebf99e0"),
        evaluation(224, 232, "bilinear"),
    ),
    "mobilenet_v3_large-5c1a4163": evaluation(224, 232, "bilinear"),
    "efficientnet_b1-c27df63c": evaluation(240, 255, "bilinear"),
}


class TimmNetwork(NamedTuple):
    """A network of timm's: its model here, and the preprocessing of its default weights."""

    model: str
    preprocessing: Preprocessing


TENSORFLOW_SIDES = (
    *((224, 256), (240, 272), (260, 292), (300, 331)),
    *((380, 412), (456, 488), (528, 560), (600, 632)),
)
_WHOLE = dataclasses.replace(evaluation(448, 448), resize="stretch")
TIMM: Mapping[str, TimmNetwork] = {
    "mobilenetv1_100": TimmNetwork("mobilenet_v1", evaluation(224, values=HALF)),
    "mobilenetv2_100": TimmNetwork("mobilenet_v2", evaluation(224)),
    "mobilenetv3_small_100": TimmNetwork("mobilenet_v3_small", evaluation(224)),
    "mobilenetv3_large_100": TimmNetwork("mobilenet_v3_large", evaluation(224)),
    "tf_mobilenetv3_small_100": TimmNetwork(
        "tf_mobilenet_v3_small", evaluation(224, 256, "bilinear", HALF)
    ),
    "tf_mobilenetv3_large_100": TimmNetwork(
        "tf_mobilenet_v3_large", evaluation(224, 256, "bilinear", HALF)
    ),
    "efficientnet_lite0": TimmNetwork("timm_efficientnet_lite0", evaluation(224)),
    "tf_efficientnet_lite0": TimmNetwork("efficientnet_lite0", evaluation(224, values=HALF)),
    "efficientnet_b0": TimmNetwork("efficientnet_b0", evaluation(224)),
    "efficientnet_b1": TimmNetwork("efficientnet_b1", evaluation(240, 266, values=HALF)),
    "efficientnet_b2": TimmNetwork("efficientnet_b2", evaluation(256, 292)),
    "efficientnet_b3": TimmNetwork("efficientnet_b3", evaluation(288, 329)),
    "efficientnet_b4": TimmNetwork("efficientnet_b4", evaluation(320, 365)),
    "efficientnet_b5": TimmNetwork("efficientnet_b5", _WHOLE),
    "efficientnet_b6": TimmNetwork("efficientnet_b6", evaluation(528, 560)),
    "efficientnet_b7": TimmNetwork("efficientnet_b7", evaluation(600, 632)),
    **{
        f"tf_efficientnet_b{i}": TimmNetwork(f"tf_efficientnet_b{i}", evaluation(side, resized))
        for i, (side, resized) in enumerate(TENSORFLOW_SIDES)
    },
    **{
        name: TimmNetwork(name, evaluation(224, 235))
        for name in ("resnet18", "resnet34", "resnet50", "resnet101")
    },
    "resnetblur18": TimmNetwork("resnetblur18", evaluation(224)),
    "resnetblur50": TimmNetwork("resnetblur50", evaluation(224)),
    "inception_v3": TimmNetwork("inception_v3", evaluation(299, 341, values=HALF)),
    **{name: TimmNetwork(name, _USUAL) for name in ("vgg16", "vgg16_bn", "vgg19", "vgg19_bn")},
}
CROP_MODES: Mapping[str, Resize] = {"center": "crop", "squash": "stretch"}
# Networks that differ in width alone: mobilenetv2_050 and --model_options=width=0.5.
WIDTHS = re.compile(r"(?:tf_)?mobilenetv[123](?:_small|_large)?_(?=\d{3}$)")


class Origin(NamedTuple):
    """The origin of weights, and facts that follow from it.

    Attributes:
      said: the assumed origin, in words for a person.
      preprocessing: of the images they were trained on.
      epsilon: of their network's batch normalisation; None if the model has the same.
    """

    said: str
    preprocessing: Preprocessing
    epsilon: float | None = None


def origin_of(
    file: Path, tensors: Collection[str], model: str, entry: Entry, init_as: str = ""
) -> Origin:
    """Finds the origin of the weights in a file, for the model that they are to fill.

    Args:
      tensors: the names of the file's tensors.
      model: the model's name; `entry` has its facts.
      init_as: timm's name of their network, if a person gave it.

    Raises:
      UserError: where the origin is unclear, or is another network than the model with the same
        tensors.
    """
    stated = hub_config(file)
    name = stated.get("architecture", "")
    if init_as:
        choose(_full_width(init_as), TIMM, "network of timm's in --init_as")
        if name not in ("", init_as):
            raise UserError(
                f"--init_as={init_as}: config.json beside {file} says {name}; leave the flag out."
            )
    name = name or init_as or published_name(file)
    layout = "conv_stem.weight" in tensors  # in which timm has its mobile networks
    if not name and layout:
        name = _only_choice(file, model)
    if not name:
        known = TORCHVISION_SECOND.get(file.stem) or TORCHVISION.get(model)
        if known is None:
            return Origin("whose images are not known: ImageNet's are taken", _guessed(entry))
        return Origin(f"torchvision's {model}", known)

    network = TIMM.get(_full_width(name))
    if network is None or network.model != model:
        here = "it is not among them"
        if network:
            here = f"give --model={network.model}, or --backbone={network.model}"
        raise UserError(
            f"{file}: is of timm's {name}, another network than {model} here, although tensors may "
            f"have the same names: {here}."
        )
    preprocessing = network.preprocessing
    if stated:
        preprocessing = _from_config(file, stated["pretrained_cfg"])
    epsilon = None
    if layout:
        epsilon = 1e-3 if name.startswith("tf_") else 1e-5
    return Origin(f"timm's {name}", preprocessing, epsilon)


def hub_config(file: Path) -> Mapping[str, Any]:
    """Reads timm's config.json beside weights; empty if there is none of timm's."""
    try:
        found = read_json(file.parent / "config.json")
    except UserError:
        return {}
    fits = isinstance(found, dict) and isinstance(found.get("pretrained_cfg"), dict)
    return found if fits and isinstance(found.get("architecture"), str) else {}


def published_name(file: Path) -> str:
    """Finds timm's name of a network in the path of published weights; "" if there is none.

    NAME.TAG in its repositories, as .../models--timm--resnet50.a1_in1k/..., and before them
    NAME_TAG-HASH.pth, where names that torchvision has too say nothing.
    """
    names = "|".join(sorted(TIMM, key=len, reverse=True))
    pattern = re.compile(rf"({names}|resnetaa\d+)(\.[a-z]\w*)?(?=[._-]|$)")
    hub = "models--timm--"
    folders = (part.removeprefix(hub) for part in file.parts if part.startswith(hub))
    for part in (file.with_suffix("").name, *folders):
        found = pattern.match(part)
        if found and (found[2] or found[1].startswith(("tf_", "resnetblur", "resnetaa"))):
            return found[1]
    return ""


def _full_width(name: str) -> str:
    found = WIDTHS.match(name)
    return f"{found[0]}100" if found else name


def _only_choice(file: Path, model: str) -> str:
    """Returns timm's name of the model, if the model has it, or if only one has such tensors."""
    kind = re.compile("(tf|timm)_")
    alike = {
        name: network.model
        for name, network in TIMM.items()
        if kind.sub("", network.model) == kind.sub("", model)
    }
    if len(alike) > 1 and not kind.match(model):
        raise UserError(
            f"{file}: has the tensors of timm's {' and of its '.join(alike)}, whose networks "
            "differ in padding and epsilon; say which with --init_as."
        )
    return next((name for name, own in alike.items() if own == model), "")


def _guessed(entry: Entry) -> Preprocessing:
    side = entry.image_size
    found = evaluation(side, round(side * 256 / 224), "bilinear")
    if entry.channels == 3:
        return found
    mean, std = (sum(IMAGENET[name]) / 3 for name in ("mean", "std"))
    return dataclasses.replace(found, channels=entry.channels, mean=(mean,), std=(std,))


def _from_config(file: Path, stated: Mapping[str, Any]) -> Preprocessing:
    """Returns the preprocessing that timm makes of a pretrained_cfg."""
    try:
        side = int(stated["input_size"][1])
        found = evaluation(side, int(side / stated["crop_pct"]), stated["interpolation"])
        return dataclasses.replace(
            found,
            resize=CROP_MODES[stated.get("crop_mode") or "center"],
            mean=tuple(255.0 * x for x in stated["mean"]),
            std=tuple(255.0 * x for x in stated["std"]),
        )
    except (KeyError, TypeError, ValueError, IndexError, UserError) as error:
        raise UserError(
            f"{file.parent / 'config.json'}: says nothing that is understood of how images are "
            f"prepared ({type(error).__name__}: {error})."
        ) from None
