"""Receptive fields against published sizes, and against which pixels move a value."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import models
from research.nn.convolution import Conv
from research.nn.initialisers import INITIALISERS
from research.nn.pooling import adaptive_average_pool, average_pool, max_pool
from research.understanding.network import ImageNetwork, layers_of
from research.understanding.receptive_fields import receptive_fields, sizes


def network_of(model, side, channels=3, key=None):
    """A network of shapes alone, or with random weights."""
    image = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    if key is None:
        model = model.clone(kernel_init=INITIALISERS["zeros"])
        variables = jax.eval_shape(model.init, jax.random.key(0), image)
        variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), variables)
    else:
        variables = model.init(key, jnp.zeros(image.shape))
    return ImageNetwork(model.apply, variables, (), (side, side, channels))


@pytest.mark.parametrize(
    ("name", "options", "side", "layer", "expected"),
    [
        # Araujo et al., "Computing receptive fields of convolutional neural networks", Distill
        # 2019: AlexNet and VGG-16 after their last pooling; here before it.
        ("vgg16", {"width": 1, "hidden": 2}, 256, "features_28", 196),
        ("vgg16", {"width": 1, "hidden": 2}, 256, "features_14", 40),
        ("alexnet", {}, 256, "features_10", 163),
        # With the stride in the 3x3 convolutions, as torchvision has it.
        ("resnet50", {"width": 2}, 512, "layer4_2", 427),
        ("resnet18", {"width": 2}, 512, "layer4_1", 435),
    ],
)
def test_published_sizes(name, options, side, layer, expected):
    fields = receptive_fields(network_of(models.create(name, **options), side))
    assert sizes(fields)[layer] == (expected, expected)


class Mixture(nn.Module):
    """Dilation, groups, strides, odd padding, poolings, a shortcut, branches, depth to space."""

    kernel_init: object = INITIALISERS["he"]

    @nn.compact
    def __call__(self, images):
        x = Conv(4, (3, 1), 1, padding=((2, 0), (0, 0)), name="tall")(images)
        y = Conv(4, 3, 1, dilation=2, groups=2, name="dilated")(x)
        x = nn.relu(x + y)
        x = max_pool(x, 3, 2, padding=1)
        x = Conv(4, 3, 2, padding="SAME", groups=4, name="depthwise")(x)
        branch = average_pool(Conv(4, 1, name="one")(x), 3, 1, padding=1)
        x = jnp.concatenate([x, branch], -1)
        x = Conv(8, 3, name="mixed")(x)
        batch, height, width, _ = x.shape
        x = x.reshape(batch, height, width, 2, 2, 2).transpose(0, 1, 3, 2, 4, 5)
        x = Conv(2, 3, name="upsampled")(x.reshape(batch, 2 * height, 2 * width, 2))
        x = jax.image.resize(x, (batch, 5, 5, 2), "bilinear", antialias=False)
        x = Conv(2, 1, name="resized")(x)
        x = adaptive_average_pool(x, 2, 2)
        return nn.Dense(3, name="head")(x.reshape(batch, -1))


def test_a_box_holds_exactly_the_pixels_whose_change_can_reach_a_place():
    side, rng = 15, np.random.default_rng(0)
    network = network_of(Mixture(), side, 2, jax.random.key(1))
    fields = receptive_fields(network)
    # Every pixel in turn becomes another one, from several images: maxima hide some changes.
    reached = {name: np.zeros((*box.shape[:2], side, side), bool) for name, box in fields.items()}
    run = jax.jit(lambda x: layers_of(network, x))
    for _ in range(6):
        image = rng.normal(size=(side, side, 2)).astype("f")
        changed = np.repeat(image[None], side * side + 1, axis=0)
        for i in range(side * side):
            changed[i, i // side, i % side] += rng.choice([-50, 50])
        for name, values in run(changed).items():
            values = np.asarray(values)
            values = values.reshape(len(values), *fields[name].shape[:2], -1)
            moved = (values[:-1] != values[-1]).any(-1)  # [pixel, rows, columns]
            reached[name] |= np.moveaxis(moved, 0, -1).reshape(reached[name].shape)
    assert set(fields) >= {"tall", "dilated", "depthwise", "mixed", "upsampled", "resized", "head"}
    for name, boxes in fields.items():
        for place in np.ndindex(*boxes.shape[:2]):
            rows = np.flatnonzero(reached[name][place].any(1))
            columns = np.flatnonzero(reached[name][place].any(0))
            found = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
            assert tuple(boxes[place]) == found, f"{name} at {place}"
