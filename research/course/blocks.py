"""Blocks and networks: shortcuts, branches, shapes layer by layer."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research import models
from research.course.config import WorkedExamplesConfig
from research.course.worked import Worked, largest_difference, step
from research.figures import course as figures
from research.models.googlenet import MODULES, branches
from research.nn.convolution import Conv
from research.nn.inception import InceptionModule
from research.nn.initialisers import INITIALISERS
from research.nn.mobile import InvertedResidual
from research.nn.normalisation import batch_norm
from research.nn.residual import ResidualBlock


def _zeros(module: nn.Module, *inputs: Any) -> Any:
    """Makes a module's variables: kernels 0, batch normalisation as it starts."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))
    ones = ("scale", "var")
    return jax.tree.map_with_path(
        lambda path, leaf: jnp.full(leaf.shape, 1.0 if path[-1].key in ones else 0.0), shapes
    )


def residual(config: WorkedExamplesConfig) -> Worked:
    """Sets a block's weights to 0, with and without its shortcut; changes its shape."""
    block = partial(
        ResidualBlock,
        activation=nn.relu,
        kernel_init=INITIALISERS["zeros"],
        norm=batch_norm(False, None),
    )
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.uniform(0.1, 1, (1, 4, 4, 2)), jnp.float32)
    with_skip, plain = block(2), block(2, shortcut=False)
    outputs = {
        name: np.asarray(one.apply(_zeros(one, inputs), inputs))
        for name, one in (("residual", with_skip), ("plain", plain))
    }
    negative = np.asarray(with_skip.apply(_zeros(with_skip, inputs), -inputs))
    flat = lambda one: lambda x: one.apply(_zeros(one, inputs), x.reshape(inputs.shape)).ravel()
    jacobians = {
        name: np.asarray(jax.jacobian(flat(one))(jnp.asarray(inputs.ravel())))
        for name, one in (("residual", with_skip), ("plain", plain))
    }
    changed = {}
    ways = {"projection": block(6, stride=2), "padding": block(6, stride=2, shortcut="padding")}
    for way, other in ways.items():
        made = _zeros(other, inputs)
        size = sum(
            leaf.size
            for k, v in made["params"].items()
            if "down" in k
            for leaf in jax.tree.leaves(v)
        )
        changed[way] = (np.asarray(other.apply(made, inputs)), size)
    padded = changed["padding"][0]
    return Worked(
        [
            step(
                "all weights 0: a[l+2] = g(0 + a[l]), one channel", outputs["residual"][0, :, :, 0]
            ),
            step("without the shortcut", outputs["plain"][0, :, :, 0]),
            step("ReLU is no identity: negative inputs become", negative[0, 0, :, 0]),
            step(
                "4x4x2 to 2x2x6 needs W_s",
                *(f"{way}: {out.shape}, {n} parameters" for way, (out, n) in changed.items()),
            ),
        ],
        {
            "residual_difference": (
                largest_difference(outputs["residual"], inputs),
                "from its input; must be 0",
            ),
            "plain_output": (float(np.abs(outputs["plain"]).max()), "must be 0"),
            "residual_jacobian": (
                largest_difference(jacobians["residual"], np.eye(32)),
                "from the identity; must be 0",
            ),
            "plain_jacobian": (float(np.abs(jacobians["plain"]).max()), "must be 0"),
            "negative_output": (float(np.abs(negative).max()), "of inputs below 0; must be 0"),
            "projected_channels": (float(changed["projection"][0].shape[-1]), "must be 6"),
            "padded_channels": (float(padded.shape[-1]), "must be 6"),
            "padding_parameters": (float(changed["padding"][1]), "must be 0"),
            "padded_difference": (
                largest_difference(padded[..., :2], inputs[:, ::2, ::2]),
                "between its first channels and every second input; must be 0",
            ),
        },
        lambda: {
            "residual_block": figures.grids(
                {
                    "input": np.asarray(inputs)[0, :, :, 0],
                    "residual, weights 0": outputs["residual"][0, :, :, 0],
                    "plain, weights 0": outputs["plain"][0, :, :, 0],
                }
            )
        },
    )


def inception(config: WorkedExamplesConfig) -> Worked:
    """Adds up an inception module's branches; follows an inverted residual's three steps."""
    columns = MODULES["3a"]
    image = jax.ShapeDtypeStruct((1, 28, 28, 192), jnp.float32)

    def shape_of(module: nn.Module, x: Any) -> tuple[tuple[int, ...], int]:
        out, variables = jax.eval_shape(
            lambda v: module.init_with_output(jax.random.key(0), v, False), x
        )
        kernels = [leaf.size for leaf in jax.tree.leaves(variables["params"]) if leaf.ndim == 4]
        return out.shape, sum(kernels)

    five, weights = shape_of(InceptionModule(branches(*columns, five_size=5)), image)
    direct, naive = shape_of(
        InceptionModule(branches(*columns, five_size=5, bottleneck=False)), image
    )
    small = jax.ShapeDtypeStruct((1, 8, 8, 24), jnp.float32)
    shapes: dict[str, tuple[int, ...]] = {}

    def steps_of(channels: int, stride: int) -> dict[str, tuple[int, ...]]:
        block = InvertedResidual(144, channels, stride=stride)
        _, inner = jax.eval_shape(
            lambda x: block.apply(
                block.init(jax.random.key(0), x, False), x, False, capture_intermediates=True
            ),
            small,
        )
        found = inner["intermediates"]
        return {
            k: v["__call__"][0].shape
            for k, v in found.items()
            if k.endswith("_0") or k == "block_2_0"
        }

    shapes = steps_of(24, 1)
    narrow = InvertedResidual(144, 24)
    x = jnp.ones((1, 8, 8, 24))
    same = np.asarray(narrow.apply(_zeros(narrow, x, False), x, False))
    wider = InvertedResidual(144, 32)
    other = np.asarray(wider.apply(_zeros(wider, x, False), x, False))
    flops = 1.2 * 1.1**2 * 1.15**2
    names = ("1x1", "3x3", "5x5", "pooled")
    widths = (columns[0], columns[2], columns[4], columns[5])
    return Worked(
        [
            step(
                "inception 3a on 28x28x192: channels of the branches",
                *(f"{n:6} {w}" for n, w in zip(names, widths, strict=True)),
                f"stacked {five}, {weights:,} weights with bottlenecks, without {naive:,}",
                f"without, pooling keeps its 192 channels: {direct}",
            ),
            step(
                "MobileNet-v2's block on 8x8x24: expansion, depthwise, projection",
                *(f"{name}: {shape}" for name, shape in shapes.items()),
            ),
            step("EfficientNet: depth 1.2, width 1.1^2, resolution 1.15^2", f"{flops:.2f} times"),
        ],
        {
            "stacked_channels": (float(five[-1]), "64 + 128 + 32 + 32; must be 256"),
            "rows_kept": (float(five[1]), "of 28; must be 28"),
            "weights_saved": (naive / weights, "without bottlenecks over with; must be above 2"),
            "channels_without": (float(direct[-1]), "64 + 128 + 32 + 192; must be 416"),
            "expanded": (float(max(s[-1] for s in shapes.values())), "channels; must be 144"),
            "projected": (float(min(s[-1] for s in shapes.values())), "channels; must be 24"),
            "skip_difference": (
                largest_difference(same, x),
                "weights 0, shapes agree: its input; must be 0",
            ),
            "no_skip": (float(np.abs(other).max()), "24 to 32 channels: no skip; must be 0"),
            "compound_scaling": (flops, "must be 1.92, about 2"),
        },
        lambda: {
            "inception": figures.bars(
                {"weights of inception 3a": {"with bottlenecks": weights, "without": naive}}
            )
        },
    )


def networks(config: WorkedExamplesConfig) -> Worked:
    """Lists the maps and parameters of LeNet-5, AlexNet and VGG-16, by their shapes alone."""
    known = models.available()
    counts = {n: models.count_parameters(known[n]) for n in ("lenet5", "alexnet_2012", "vgg16")}

    def maps_of(name: str) -> dict[str, tuple[int, ...]]:
        entry = known[name]
        module = entry.make()
        found: dict[str, tuple[int, ...]] = {}

        def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            out = call(*args, **kwargs)
            if isinstance(context.module, Conv | nn.Dense):
                found[str(context.module.name)] = out.shape[1:]
            return out

        sides = (1, entry.image_size, entry.image_size, entry.channels)
        with nn.intercept_methods(note):  # in the order of the calls
            jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(sides, jnp.float32))
        return found

    shapes = {name: maps_of(name) for name in counts}
    lenet, alex, vgg = (list(shapes[n].items()) for n in ("lenet5", "alexnet_2012", "vgg16"))
    layers = {n: len(s) for n, s in shapes.items()}
    filters = models.create("alexnet_2012")
    kernel = jax.eval_shape(
        filters.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    )["params"]["features_0"]["kernel"].shape
    return Worked(
        [
            step(
                f"{name}: {counts[name]:,} parameters, {layers[name]} layers that learn",
                *(f"{k:16} {' x '.join(map(str, s))}" for k, s in found.items()),
            )
            for name, found in shapes.items()
        ],
        {
            "lenet_parameters": (float(counts["lenet5"]), "must be 61,706"),
            "vgg_parameters": (float(counts["vgg16"]), "must be 138,357,544"),
            "lenet_layers": (float(layers["lenet5"]), "pooling counted with them; must be 5"),
            "lenet_layers_apart": (float(layers["lenet5"] + 2), "with 2 of pooling; must be 7"),
            "vgg_layers": (float(layers["vgg16"]), "must be 16"),
            "alexnet_first_side": (
                float(alex[0][1][0]),
                "of 224, 11x11, p = 2, stride 4; must be 55",
            ),
            "alexnet_filter_side": (float(kernel[0]), "must be 11"),
            "alexnet_filter_channels": (float(kernel[2]), "must be 3"),
            "alexnet_conv5_side": (float(alex[4][1][0]), "must be 13"),
            "alexnet_conv5_channels": (float(alex[4][1][2]), "2 halves of 128; must be 256"),
            "alexnet_features": (float(alex[6][1][-1]), "before the last layer; must be 4,096"),
            "vgg_last_side": (float(vgg[12][1][0] / 2), "224 after 5 poolings; must be 7"),
            "vgg_channels_grow": (float(vgg[12][1][2] / vgg[0][1][2]), "64 to 512; must be 8"),
            "lenet_first_maps": (float(lenet[0][1][0]), "32 to 28 by 5x5; must be 28"),
        },
        lambda: {
            "networks": figures.curves(
                {
                    "side": {n: _course(s, 0) for n, s in shapes.items()},
                    "channels": {n: _course(s, -1) for n, s in shapes.items()},
                },
                ("layer", ""),
                logarithmic=True,
                across=2,
            )
        },
    )


def _course(shapes: dict[str, tuple[int, ...]], axis: int) -> figures.Curve:
    values = [s[axis] if len(s) == 3 or axis == -1 else 1 for s in shapes.values()]
    return np.arange(1, len(values) + 1), np.array(values)
