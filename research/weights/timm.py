"""Renames timm's tensors of MobileNet-v2, -v3, EfficientNet and VGG to torchvision's names.

timm's ResNets, Inception-v3 and MobileNet-v1 need no renaming: the models here have their names.
"""

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np

# A block's layers in order, each a convolution and its normalisation; with and without a 1x1
# convolution that widens first.
WIDENED = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))
SEPARABLE = (("conv_dw", "bn1"), ("conv_pw", "bn2"))
SQUEEZE = {"se.conv_reduce": "fc1", "se.conv_expand": "fc2"}


def as_torchvision(
    tensors: Mapping[str, np.ndarray], wanted: Collection[str]
) -> Mapping[str, np.ndarray]:
    """Renames tensors where they have timm's names and the model has torchvision's.

    Args:
      tensors: a state dict.
      wanted: torch's names of the model's variables, with "_" for ".".
    """
    if "pre_logits.fc1.weight" in tensors:
        return _vgg(tensors)
    if "conv_stem.weight" not in tensors or "conv_stem_weight" in wanted:
        return tensors
    found = (re.match(r"blocks\.(\d+)\.(\d+)\.", name) for name in tensors)
    blocks = sorted({(int(block[1]), int(block[2])) for block in found if block})
    renamed = {}
    for name, value in tensors.items():
        new = _renamed(name, blocks, tensors, wanted)
        # MobileNet-v3's dense layer after pooling is a 1x1 convolution in timm.
        renamed[new] = value.reshape(value.shape[:2]) if new == "classifier.0.weight" else value
    return renamed


def with_epsilon(
    tensors: Mapping[str, np.ndarray], theirs: float, ours: float
) -> dict[str, np.ndarray]:
    """Changes tensors to give the same outputs with epsilon `ours` as before with `theirs`.

    (x - mean) scale / sqrt(var + theirs) is (x - mean) scale' / sqrt(var + ours).
    """
    changed = dict(tensors)
    for name, var in tensors.items():
        layer, _, leaf = name.rpartition(".")
        if leaf == "running_var":
            factor = np.sqrt((var.astype(np.float64) + ours) / (var + theirs))
            scale = tensors[f"{layer}.weight"]
            changed[f"{layer}.weight"] = (scale * factor).astype(scale.dtype)
    return changed


def _vgg(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Converts VGG's dense layers, which are convolutions over 7x7 and then 1x1 cells in timm."""
    dense = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3"}
    dense["head.fc"] = "classifier.6"
    renamed = {}
    for name, value in tensors.items():
        layer, _, leaf = name.rpartition(".")
        flat = value.reshape(len(value), -1) if layer in dense and leaf == "weight" else value
        renamed[f"{dense.get(layer, layer)}.{leaf}"] = flat
    return renamed


def _renamed(
    name: str,
    blocks: Sequence[tuple[int, int]],
    tensors: Collection[str],
    wanted: Collection[str],
) -> str:
    layer, leaf = name.rsplit(".", 1)
    staged = "features_1_0_block_0_0_weight" in wanted  # EfficientNet: features.STAGE.BLOCK
    last = blocks[-1][0] + 2 if staged else len(blocks) + 1
    outer = {
        "conv_stem": "features.0.0",
        "bn1": "features.0.1",
        "conv_head": f"features.{last}.0",
        "bn2": f"features.{last}.1",
        "classifier": "classifier.1",
    }
    if "conv_head.bias" in tensors:  # MobileNet-v3 widens after pooling, in a dense layer
        outer |= {"conv_head": "classifier.0", "classifier": "classifier.3"}
    if layer in outer:
        return f"{outer[layer]}.{leaf}"

    inside = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(.+)", layer)
    if inside is None:
        return name
    block, inner = (int(inside[1]), int(inside[2])), inside[3]
    place = (
        f"features.{block[0] + 1}.{block[1]}" if staged else f"features.{blocks.index(block) + 1}"
    )
    prefix = f"blocks.{block[0]}.{block[1]}"
    if f"{prefix}.conv.weight" in tensors:  # MobileNet-v3's last convolution, alone in its block
        return f"{place}.{('conv', 'bn1').index(inner)}.{leaf}"

    layers = WIDENED if f"{prefix}.conv_pwl.weight" in tensors else SEPARABLE
    squeezed = f"{prefix}.se.conv_reduce.weight" in tensors
    if inner in SQUEEZE:
        return f"{place}.block.{len(layers) - 1}.{SQUEEZE[inner]}.{leaf}"
    position = next(i for i, pair in enumerate(layers) if inner in pair)
    norm = layers[position].index(inner)
    final = position == len(layers) - 1
    if "features_1_conv_0_0_weight" in wanted:  # MobileNet-v2 numbers the last two layers singly
        return f"{place}.conv.{position + norm if final else f'{position}.{norm}'}.{leaf}"
    return f"{place}.block.{position + (final and squeezed)}.{norm}.{leaf}"
