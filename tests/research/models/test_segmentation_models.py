"""U-Net, FCN and DeepLab: the papers' numbers, any image size, gradients, batch statistics."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import check_gradients, drawn

from research.errors import UserError
from research.models import available, create
from research.nn.initialisers import INITIALISERS
from research.understanding.network import ImageNetwork
from research.understanding.receptive_fields import receptive_fields

ZEROS = INITIALISERS["zeros"]


def shapes(model, image=(1, 64, 64, 3)):
    model = model.clone(kernel_init=ZEROS)
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(image, jnp.float32))


def images(*shape):
    return jnp.array(np.random.default_rng(1).normal(size=shape), "f")


def count(name, image=(1, 64, 64, 3), **attributes):
    variables = shapes(create(name, **attributes), image)
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


def test_the_paper_s_network_layer_by_layer():
    def conv(side, inputs, outputs):
        return side * side * inputs * outputs + outputs

    widths = [64, 128, 256, 512, 1024]
    total = conv(1, 64, 2)
    for inputs, outputs in itertools.pairwise([1, *widths]):
        total += conv(3, inputs, outputs) + conv(3, outputs, outputs)
    for inputs, outputs in itertools.pairwise(reversed(widths)):
        total += conv(2, inputs, outputs)  # the up-convolution halves the channels
        total += conv(3, 2 * outputs, outputs) + conv(3, outputs, outputs)
    assert total == 31_030_658
    assert count("unet", (1, 32, 32, 1), num_classes=2) == total


@pytest.mark.parametrize(
    ("name", "attributes", "published"),
    [
        ("unet_backbone", {"num_classes": 1}, 24_436_369),  # segmentation_models.pytorch
        # wkentaro/pytorch-fcn, without the weights of its last interpolation
        ("fcn32s", {"num_classes": 21}, 134_346_581),
        # torchvision's 42,004,074 without the auxiliary classifier's 2,365,205
        ("deeplab", {"num_classes": 21, "output_stride": 8}, 39_638_869),
    ],
)
def test_the_published_number_of_parameters(name, attributes, published):
    assert count(name, **attributes) == published


def test_valid_convolutions_give_the_sizes_of_figure_1():
    model = create("unet", kernel_init=ZEROS)
    variables = shapes(model, (1, 32, 32, 1))
    logits = jax.eval_shape(
        lambda v, x: model.apply(v, x, False, method="trunk"),
        variables,
        jax.ShapeDtypeStruct((1, 572, 572, 1), jnp.float32),
    )
    assert logits.shape == (1, 388, 388, 2)
    assert model.margin == (572 - 388) // 2
    assert model.mirrored(388) == (92, 92)


SMALL = {"width": 3, "depth": 2, "num_classes": 2, "dropout": 0.0}


@pytest.mark.parametrize("stem", [1, 2])
def test_a_pixel_far_from_the_border_sees_no_mirror(stem):
    """What is predicted inside is what the same pixels give with their real surroundings."""
    model = create("unet", stem=stem, **SMALL)
    variables = drawn(shapes(model, (1, 32, 32, 1)))
    multiple, margin = model.multiple, model.margin
    scene = images(1, 6 * multiple + 2 * margin, 6 * multiple + 2 * margin, 1)
    predict = jax.jit(model.apply)
    whole = predict(variables, scene)
    assert whole.shape == (*scene.shape[:3], 2)
    # The block of one cell needs `margin` around it, and comes out of `trunk` by itself.
    before, after = model.mirrored(multiple)
    assert before == margin
    start = 2 * multiple + (margin // multiple + 1) * multiple  # on the grid of the pooling
    window = scene[:, start - before : start + multiple + after]
    window = window[:, :, start - before : start + multiple + after]
    trunk = jax.jit(lambda x: model.apply(variables, x, False, method="trunk"))
    alone = trunk(window)[:, :multiple, :multiple]
    np.testing.assert_allclose(
        whole[:, start : start + multiple, start : start + multiple], alone, atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "upsampling", "stem", "depth"),
    [
        ("unet_same", "transposed", 1, 2),
        ("unet_same", "nearest", 2, 1),
        ("unet_lean", "bilinear", 2, 1),
        ("unet", "bilinear", 1, 2),
    ],
)
def test_the_margin_is_how_far_a_pixel_sees(name, upsampling, stem, depth):
    """By the traced program's exact receptive fields; pixels of one lowest cell go together."""
    options = {"upsampling": upsampling, "stem": stem, "depth": depth, "dropout": 0.0}
    model = create(name, width=1, num_classes=2, **options)
    side = 8 * model.multiple + 2 * (model.margin + model.multiple)
    variables = jax.tree.map(lambda x: np.ones(x.shape, "f"), shapes(model, (1, 32, 32, 1)))
    network = ImageNetwork(
        lambda v, x: model.apply(v, x), variables, (), (side, 4 * model.multiple, 1)
    )
    top, bottom = receptive_fields(network)["outputs"][:, 0, [0, 2]].T
    inside = (top > 0) & (bottom < side)  # what does not see the border
    place = np.arange(side)[inside]
    reach = max((place - top[inside]).max(), (bottom[inside] - 1 - place).max())
    assert reach == model.margin + model.multiple - 1


def test_mirroring_makes_any_size_whole():
    model = create("unet", **SMALL)
    for side in range(1, 40):
        before, after = model.mirrored(side)
        level = side + before + after
        for _ in range(model.depth):
            level -= 4
            assert level > 0 and level % 2 == 0
            level //= 2
        assert side + before + after - 2 * model.margin >= side
        assert 0 <= after - before < model.multiple


@pytest.mark.parametrize("name", ["unet_same", "unet_lean"])
def test_padding_changes_nothing_where_sizes_divide(name):
    options = {"width": 3, "depth": 2, "num_classes": 2}
    model = create(name, **options)
    variables = drawn(shapes(model))
    rows, columns = (-(-n // model.multiple) * model.multiple for n in (27, 23))
    exact = images(1, rows, columns, 3)
    predict = jax.jit(model.apply)
    plain = jax.jit(lambda v, x: model.apply(v, x, False, method="trunk"))(variables, exact)
    np.testing.assert_array_equal(predict(variables, exact), plain)
    # Another size is the padded image's prediction, cropped.
    cut = exact[:, :27, :23]
    zeros = jnp.zeros_like(exact).at[:, :27, :23].set(cut)
    np.testing.assert_allclose(
        predict(variables, cut), predict(variables, zeros)[:, :27, :23], atol=1e-5
    )


TINY = [
    ("unet", SMALL, 3),
    ("unet", {**SMALL, "upsampling": "bilinear", "dropout": 0.2}, 1),
    ("unet_same", {"width": 3, "depth": 2, "upsampling": "nearest"}, 3),
    ("unet_lean", {"width": 4}, 3),
    ("unet_lean", {"width": 4, "stem": 4, "depth": 1, "skips": "concatenate"}, 3),
    ("unet_backbone", {"backbone": "convnet", "widths": (8, 4)}, 3),
    ("unet_backbone", {"backbone": "convnet", "widths": (4,), "upsampling": "transposed"}, 3),
]


@pytest.mark.parametrize(("name", "options", "channels"), TINY, ids=lambda x: str(x)[:20])
def test_every_parameter_gets_a_gradient(name, options, channels):
    model = create(name, **{"num_classes": 3, **options})
    inputs = images(2, 18, 13, channels)
    variables = drawn(shapes(model, inputs.shape))
    state = {k: v for k, v in variables.items() if k != "params"}

    def loss(params):
        logits, _ = model.apply(
            {"params": params, **state},
            inputs,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )
        assert logits.shape == (2, 18, 13, model.num_classes)
        return -jax.nn.log_softmax(logits)[..., 0].mean()

    check_gradients(loss, variables["params"])


@pytest.mark.parametrize("name", ["fcn8s", "deeplab"])
def test_every_parameter_of_the_large_ones_takes_part(name):
    """By the traced program: compiling their gradients takes minutes of the tests."""
    options = {"hidden": 8} if name == "fcn8s" else {"width": 8}
    model = create(name, num_classes=3, **options)
    variables = shapes(model)
    params, tree = jax.tree.flatten(variables["params"])

    def logits(*leaves):
        rest = jax.tree.map(lambda x: jnp.zeros(x.shape), variables.get("batch_stats", {}))
        collections = {"params": jax.tree.unflatten(tree, leaves), "batch_stats": rest}
        return model.apply(collections, jnp.zeros((1, 64, 64, 3)))

    jaxpr = jax.make_jaxpr(logits)(*params).jaxpr
    used = {id(v) for equation in jaxpr.eqns for v in equation.invars}
    unused = [i for i, v in enumerate(jaxpr.invars) if id(v) not in used]
    assert not unused
    assert jaxpr.outvars[0].aval.shape == (1, 64, 64, 3)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("unet_backbone", {"backbone": "resnet18"}),
        ("unet_backbone", {"backbone": "resnet18_cifar"}),
        ("unet_backbone", {"backbone": "vgg16_bn"}),
        ("unet_backbone", {"backbone": "efficientnet_lite0"}),
        ("unet_backbone", {"backbone": "mobilenet_v2", "upsampling": "transposed"}),
        ("unet_backbone", {"backbone": "alexnet"}),
        ("unet_backbone", {"backbone": "inception_v3"}),
        ("fcn16s", {"backbone": "vgg16", "hidden": 8}),
        ("fcn8s", {"backbone": "resnet18", "hidden": 8}),
        ("deeplab", {"backbone": "resnet18"}),
    ],
)
def test_any_backbone_and_any_size(name, attributes):
    model = create(name, num_classes=5, kernel_init=ZEROS, **attributes)
    logits, variables = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x),
        jax.ShapeDtypeStruct((2, 101, 90, 3), jnp.float32),
    )
    assert logits.shape == (2, 101, 90, 5)
    assert "backbone" in variables["params"]  # where --init_from looks
    names = set(shapes(create(attributes["backbone"]), (1, 96, 96, 3))["params"])
    assert set(variables["params"]["backbone"]) <= names


@pytest.mark.parametrize("name", ["unet_lean", "unet_backbone"])
def test_batch_statistics_do_not_depend_on_how_the_batch_is_split(name):
    options = {"width": 4} if name == "unet_lean" else {"backbone": "convnet", "widths": (4,)}
    model = create(name, num_classes=2, **options)
    batch = images(4, 16, 16, 3)
    variables = drawn(shapes(model))

    def run(x, axis):
        return model.clone(axis=axis).apply(variables, x, train=True, mutable=["batch_stats"])

    logits, state = jax.jit(lambda x: run(x, None))(batch)
    # vmap over a named axis computes what pmap does.
    split = jax.jit(jax.vmap(lambda x: run(x, "data"), axis_name="data"))
    split_logits, split_state = split(batch.reshape(2, 2, 16, 16, 3))
    np.testing.assert_allclose(split_logits.reshape(logits.shape), logits, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, atol=1e-5), split_state, state)


def test_what_a_backbone_cannot_do_is_said():
    with pytest.raises(UserError, match=r"backbone=vgg16: has no output_stride; .*resnet50"):
        shapes(create("deeplab", backbone="vgg16"))
    with pytest.raises(UserError, match="choose a convolutional network"):
        shapes(create("unet_backbone", backbone="mlp"))
    with pytest.raises(UserError, match="no map at stride 8"):
        shapes(create("fcn8s", backbone="convnet"))


def test_segmentation_models_are_no_classifiers():
    assert "unet" not in available() and "unet" in available("segmentation")
    assert set(available()) | set(available("segmentation")) <= set(available(task=None))
