"""The worked examples: one declaration each; imports no JAX.

Topics are those of docs/course: A to E with their numbers.
"""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from research.config import used_by
from research.course import config
from research.course.config import WorkedExamplesConfig

if TYPE_CHECKING:
    from research.course.worked import Worked


class Example(NamedTuple):
    """A worked example.

    Attributes:
      topics: that it shows.
      summary: what it shows, in one line.
      function: "file.function" of this folder, from a configuration to a `Worked`.
      options: the classes of flags that have an effect on it, of those that not every one uses.
    """

    topics: str
    summary: str
    function: str
    options: tuple[type, ...] = ()

    def load(self) -> "Callable[[WorkedExamplesConfig], Worked]":
        """Imports its function, and with it JAX."""
        file, _, name = self.function.partition(".")
        found: Callable[[WorkedExamplesConfig], Worked] = getattr(
            importlib.import_module(f"research.course.{file}"), name
        )
        return found


EXAMPLES: dict[str, Example] = {
    # --- Convolution ---
    "edges": Example(
        "E5 E6 E8 E9",
        "vertical and horizontal edge filters on 6x6 numbers, and on your own picture",
        "convolution.edges",
        (config.Filtered,),
    ),
    "angles": Example(
        "E4", "an edge of any angle, from two filters", "convolution.angles", (config.Angle,)
    ),
    "mirrored": Example(
        "D7 E3", "cross-correlation against convolution, associativity", "convolution.mirrored"
    ),
    "padding": Example(
        "E7 E11 E12 E13 E14",
        "how often each pixel is used; same padding",
        "convolution.padding",
    ),
    "strides": Example("E15 E16 E37", "the size of the output, in a table", "sizes.strides"),
    "volumes": Example(
        "E17 E18 E19 E20 E21 E22", "filters over several channels: 6x6x3 to 4x4x2", "sizes.volumes"
    ),
    "one_by_one": Example(
        "E43", "a 1x1 convolution is a dense layer per pixel", "sizes.one_by_one"
    ),
    "costs": Example(
        "C23 E2 E33 E45 E47",
        "parameters and multiplications: dense, shared, bottleneck, depthwise separable",
        "sizes.costs",
    ),
    "equivariance": Example(
        "B13 E34 E35",
        "sparse connections; what is shifted comes out shifted",
        "fields.equivariance",
    ),
    "shifts": Example("E35 E51", "digits that move, and mirrored ones", "shifts.shifts"),
    "dilation": Example("D13 D14 D15", "gaps between a filter's cells", "fields.dilation"),
    "transposed": Example(
        "E70 E71", "transposed convolution: every value stamps the filter", "fields.transposed"
    ),
    "bottleneck": Example("E45", "how much a bottleneck loses, by its rank", "fields.bottleneck"),
    # --- Backward ---
    "convolution_backward": Example(
        "D1 D3 D4 D5 D6 D7 D8 D9",
        "gradients of a kernel and of an image, by hand and by jax.grad",
        "backward.convolution_backward",
    ),
    "pooling_backward": Example(
        "D2", "max pooling routes the gradient, average pooling spreads it", "backward.pooling"
    ),
    "relu_rules": Example(
        "A1 A4 B14", "plain, deconvnet and guided gradients of a ReLU", "backward.relu_rules"
    ),
    "saturated_saliency": Example(
        "B11", "a gradient of 0 where the input mattered", "backward.saturated_saliency"
    ),
    "regularised_ascent": Example(
        "A5 B18", "a score less the norm of the image", "backward.regularised_ascent"
    ),
    # --- Pooling ---
    "pooling": Example("E26 E27 E28 E29 E30", "max and average pooling", "pooling.pooling"),
    "pyramid": Example(
        "D11 D12", "spatial pyramid pooling: one length for every size", "pooling.pyramid"
    ),
    "roi_pooling": Example(
        "D10", "regions of any size to one size, and what rounding costs", "pooling.roi_pooling"
    ),
    "dense_as_convolution": Example(
        "E32 E59", "a dense layer as a convolution; all windows at once", "pooling.dense"
    ),
    # --- Boxes ---
    "iou": Example("E64", "intersection over union", "boxes.overlap"),
    "suppression": Example(
        "E63 E65",
        "non-maximum suppression, step by step",
        "boxes.suppression",
        (config.Suppressed,),
    ),
    "anchors": Example("E66 E67", "which object answers at which anchor", "targets.anchors"),
    "yolo_target": Example(
        "E55 E61 E62", "the targets 3x3x8 and 3x3x2x8 of an image", "targets.yolo_target"
    ),
    "localisation_loss": Example(
        "E55 E56 E57", "squared errors with don't-cares; landmarks", "targets.localisation_loss"
    ),
    "windows": Example("E58 E60", "sliding windows: how many, how exact", "boxes.windows"),
    # --- Neurons ---
    "xor": Example("C2 D16", "XOR: hand-set, learned, and out of reach", "neurons.xor"),
    "activations": Example(
        "C3 C6 C7 C8", "activation functions, their slopes and saturation", "neurons.activations"
    ),
    "linear_depth": Example(
        "C2", "layers without activations are one matrix", "neurons.linear_depth"
    ),
    "zigzag": Example("C15", "inputs above 0 give gradients of one sign", "neurons.zigzag"),
    "zero_start": Example("C11", "units that start alike stay alike", "starts.zero_start"),
    "initialisation": Example(
        "C12 C13", "signals through ten layers, by their first weights", "starts.initialisation"
    ),
    "dropout": Example("C21", "dropout in both scalings", "regularisers.dropout"),
    "batch_norm": Example("C14", "batch normalisation's two modes", "regularisers.batch_norm"),
    "softmax": Example(
        "C25 E23", "probabilities, the first loss, a regression's reading", "regularisers.softmax"
    ),
    "scaling": Example("C9", "three ways to scale pixels", "inputs.scaling"),
    "components": Example(
        "B6 C10 E52", "principal components of features and of colours", "inputs.components"
    ),
    "compression": Example(
        "C10", "digits kept as a few numbers each; PCA and ZCA whitening", "inputs.compression"
    ),
    "augmentation": Example(
        "E51 E53", "pictures drawn anew each epoch, boxes move along", "augmentation.augmentation"
    ),
    "ensembles": Example("E54", "several models together", "augmentation.ensembles"),
    # --- Steps ---
    "learning_rate": Example(
        "C4 C5 C16 C17", "large, small and falling rates, with and without noise", "steps.rates"
    ),
    "valley": Example("C18", "the paths of optimizers in a valley", "steps.valley"),
    "adaptive_steps": Example(
        "C19 C20", "AdaGrad's step falls, RMSProp's settles", "steps.adaptive_steps"
    ),
    # --- Blocks ---
    "residual_block": Example(
        "C24 E40 E41 E42",
        "a block that does nothing, with and without a shortcut",
        "blocks.residual",
    ),
    "inception": Example(
        "E44 E48 E49",
        "modules: channels of their branches, shapes of their steps",
        "blocks.inception",
    ),
    "side_branches": Example(
        "E46",
        "a branch in the middle brings gradients to the first layers",
        "branches.side_branches",
    ),
    "networks": Example(
        "B2 B4 B9 C22 E24 E31 E36 E37 E38", "famous networks, layer by layer", "blocks.networks"
    ),
    # --- Memory ---
    "cell_state": Example("A8", "an LSTM's cell state: keep, and add", "memory.cell_state"),
    "hello": Example(
        "A6 A7", 'gates and states over "hello": one letter in, two letters out', "memory.hello"
    ),
    "gradient_reach": Example(
        "A9", "how far back a gradient reaches, by cell and forget bias", "memory.gradient_reach"
    ),
    # --- Likeness ---
    "triplets": Example(
        "E73 E76 E79 E80", "triplet loss, one against many, thresholds", "likeness.triplets"
    ),
    "style": Example("E83 E84 E85", "content and style costs", "likeness.style"),
}
# The examples that a flag has an effect on, if not all.
USED_BY = used_by({name: example.options for name, example in EXAMPLES.items()})
