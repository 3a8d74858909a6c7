"""What must hold of every architecture: published sizes, gradients everywhere, named stages."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import check_gradients, drawn

from research.errors import UserError
from research.models import attributes, available, create
from research.nn.initialisers import INITIALISERS

ZEROS = INITIALISERS["zeros"]  # tracing random ones takes longer than all else here


def shapes(model, size, channels):
    """Shapes of the variables, without computing them."""
    model = model.clone(kernel_init=ZEROS)
    image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("lenet5", {"num_classes": 10}, 61_706),
        ("lenet5_rbf", {"num_classes": 10}, 61_706 - 850),
        ("alexnet", {}, 61_100_840),
        ("alexnet_lrn", {}, 61_100_840),
        ("alexnet_2012", {}, 60_965_224),
        ("alexnet_2012", {"groups": 1}, 62_378_344),
        ("vgg16", {}, 138_357_544),
        ("vgg16_bn", {}, 138_365_992),
        ("vgg19", {}, 143_667_240),
        ("resnet18", {}, 11_689_512),
        ("resnet34", {}, 21_797_672),
        ("resnet50", {}, 25_557_032),
        ("resnet101", {}, 44_549_160),
        ("googlenet", {}, 13_004_888),
        ("googlenet", {"auxiliary": False}, 6_624_904),
        # 16 more weights for each pair of channels of the third branch: 23,808 pairs in table 1.
        ("googlenet_5x5", {}, 13_004_888 + 16 * 23_808),
        ("inception_v3", {}, 27_161_264),
        ("inception_v3", {"auxiliary": False}, 23_834_568),
    ],
)
def test_the_published_number_of_parameters(name, options, count):
    entry = available()[name]
    variables = shapes(
        create(name, **{"num_classes": 1000, **options}), entry.image_size, entry.channels
    )
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == count


def test_a_plain_network_is_the_residual_one_without_projections():
    plain, residual = (shapes(create(name), 64, 3)["params"] for name in ("plain18", "resnet18"))
    projections = {
        f"layer{i}_0": sum(
            x.size
            for j in (0, 1)
            for x in jax.tree.leaves(residual[f"layer{i}_0"][f"downsample_{j}"])
        )
        for i in (2, 3, 4)
    }
    sizes = [sum(x.size for x in jax.tree.leaves(tree)) for tree in (plain, residual)]
    assert sizes[1] - sizes[0] == sum(projections.values())


# Every architecture at a size that trains in seconds: (name, attributes, side, channels).
SMALL = [
    ("mlp", {"hidden": (16, 8), "normalise": True, "dropout": 0.1}, 8, 1),
    ("linear", {}, 8, 1),
    ("xor", {}, 1, 2),
    ("lenet5", {}, 32, 1),
    ("lenet5_rbf", {}, 32, 1),
    ("convnet", {"widths": (4, 8, 8), "dropout": 0.1}, 12, 3),
    (
        "convnet",
        {"widths": (4, 8, 8), "normalise": False, "pooled": False, "pyramid": (1, 2)},
        12,
        1,
    ),
    ("alexnet_lrn", {"hidden": 32, "dropout": 0.1}, 63, 3),
    ("vgg16", {"width": 4, "hidden": 32, "stages": (2, 1, 1, 1, 1)}, 32, 3),
    ("vgg16_bn", {"width": 4, "hidden": 32, "stages": (2, 1, 1, 1, 1)}, 32, 3),
    ("resnet18", {"width": 4, "stages": (2, 1, 1, 1)}, 33, 3),
    ("resnet50", {"width": 4, "stages": (1, 1, 1, 1)}, 33, 3),
    ("resnet18_cifar", {"width": 4, "stages": (1, 1, 1, 1)}, 8, 1),
    ("plain18", {"width": 4, "stages": (2, 1, 1, 1)}, 33, 3),
    ("googlenet", {"modules": ("3b", "4a", "4d", "5b")}, 32, 3),
    (
        "inception_v3",
        {"modules": tuple(f"Mixed_{i}" for i in ("5b", "6a", "6e", "7a", "7c"))},
        75,
        3,
    ),
]


LONG = ("googlenet", "inception_v3")  # seconds each


@pytest.mark.parametrize(
    ("name", "options", "size", "channels"),
    [
        pytest.param(
            *case,
            id=f"{case[0]}-{number}",
            marks=[pytest.mark.families] if case[0] in LONG else [],
        )
        for number, case in enumerate(SMALL)
    ],
)
def test_every_parameter_gets_a_gradient(name, options, size, channels):
    model = create(name, num_classes=3, **options) if name != "xor" else create(name)
    images = jnp.array(np.random.default_rng(0).normal(size=(4, size, size, channels)), "f")
    variables = drawn(shapes(model, size, channels))
    state = {k: v for k, v in variables.items() if k != "params"}

    def loss(params):
        logits, changes = model.apply(
            {"params": params, **state},
            images,
            train=True,
            mutable=["batch_stats", "auxiliary"],
            rngs={"dropout": jax.random.key(1)},
        )
        everything = [logits, *jax.tree.leaves(changes.get("auxiliary", {}))]
        return sum(-jax.nn.log_softmax(x)[:, 0].mean() for x in everything)

    check_gradients(loss, variables["params"])


@pytest.mark.parametrize(
    ("name", "size", "sides"),
    [
        ("lenet5", 32, {"s2": 14, "s4": 5}),
        ("convnet", 28, {"stage0": 28, "stage1": 14, "stage2": 7}),
        ("alexnet", 224, {"conv1": 55, "conv2": 27, "conv5": 13}),
        ("vgg16", 224, {f"stage{i}": 448 >> i for i in range(1, 6)}),
        (
            "resnet50",
            224,
            {"stem": 112, "layer1": 56, "layer2": 28, "layer3": 14, "layer4": 7},
        ),
        ("resnet18_cifar", 32, {"stem": 32, "layer1": 32, "layer2": 16, "layer3": 8, "layer4": 4}),
        (
            "googlenet",
            224,
            {"conv1": 112, "conv3": 56, "inception3": 28, "inception4": 14, "inception5": 7},
        ),
        ("inception_v3", 299, {"stem": 147, "conv4": 71, "mixed5": 35, "mixed6": 17, "mixed7": 8}),
    ],
)
def test_features_are_the_named_stages_from_fine_to_coarse(name, size, sides):
    found = {}

    def run(image):
        maps, _ = create(name, kernel_init=ZEROS).init_with_output(
            jax.random.key(0), image, features=True
        )
        found.update(maps)  # in their order, which jit would not keep

    channels = available()[name].channels
    jax.eval_shape(run, jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32))
    assert {k: v.shape[1] for k, v in found.items()} == sides
    assert list(found) == list(sides)


@pytest.mark.parametrize(("stride", "sides"), [(32, (8, 4, 2)), (16, (8, 4, 4)), (8, (8, 8, 8))])
def test_output_stride_dilates_instead_of_striding(stride, sides):
    model = create("resnet50", output_stride=stride)
    maps = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, features=True)[0],
        jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32),
    )
    assert tuple(maps[f"layer{i}"].shape[1] for i in (2, 3, 4)) == sides


def test_a_twin_has_the_parameters_of_a_model_that_is_none():
    twins = {name: entry.twin for name, entry in available(task=None).items() if entry.twin}
    assert twins["tf_efficientnet_b5"] == "efficientnet_b5" and not twins.keys() & twins.values()
    own, other = (shapes(create(n), 32, 3)["params"] for n in ("resnetblur18", "resnet18"))
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, other)


# EfficientNet-B1 to B7 are B0 with other numbers, twins are alike in all that has a shape.
DISTINCT = [n for n, entry in available().items() if not entry.twin and n[:-1] != "efficientnet_b"]


@pytest.mark.parametrize("name", [*DISTINCT, "efficientnet_b0"])
def test_every_model_takes_its_smallest_image_and_any_channels_and_classes(name):
    entry = available()[name]
    size = entry.image_size if entry.fixed_size else entry.min_size
    model = create(name, num_classes=7, kernel_init=ZEROS)
    logits = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x)[0],
        jax.ShapeDtypeStruct((2, size, size, 5), jnp.float32),
    )
    assert logits.shape == (2, 7)


@pytest.mark.parametrize("name", ["convnet", "vgg16_bn", "resnet50", "googlenet", "inception_v3"])
def test_mixed_precision_computes_low_and_keeps_statistics_high(name):
    model = create(name, num_classes=10)
    size = max(available()[name].min_size, 32)
    variables = shapes(model, size, 3)
    low = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), variables["params"])
    logits, changes = jax.eval_shape(
        lambda params, stats, images: model.apply(
            {"params": params, "batch_stats": stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        ),
        low,
        variables["batch_stats"],
        jax.ShapeDtypeStruct((2, size, size, 3), jnp.bfloat16),
    )
    assert logits.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(changes)} == {jnp.dtype("float32")}


def test_auxiliary_logits_come_in_training_alone():
    model = create("googlenet", num_classes=5)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = shapes(model, 32, 3)
    assert set(variables) == {"params", "batch_stats"}

    def run(train):
        return jax.eval_shape(
            lambda v, x: model.apply(
                v,
                x,
                train,
                mutable=["auxiliary", "batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )[1],
            variables,
            images,
        ).get("auxiliary", {})

    assert [x.shape for x in jax.tree.leaves(run(True))] == [(2, 5), (2, 5)]
    assert not run(False)


def test_the_radial_head_of_lenet_is_nearest_to_its_own_code():
    from research.models.lenet import LeNet5, codes

    centres = codes(10)
    assert len({tuple(row) for row in np.asarray(centres)}) == 10
    model = LeNet5(radial=True)
    images = jnp.zeros((1, 32, 32, 1))
    params = drawn(shapes(model, 32, 1))["params"]
    for digit in range(10):
        # F6 saturates at the digit's code, so its distance is zero and the others' 4 a pixel.
        f6 = {"kernel": 0 * params["f6"]["kernel"], "bias": 100 * centres[digit]}
        logits = model.apply({"params": params | {"f6": f6}}, images)[0]
        differing = (centres != centres[digit]).sum(1)
        np.testing.assert_allclose(logits, -4.0 * differing, atol=1e-4)


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'resnet18'"):
        create("resnet_18")


def test_attributes_come_from_text():
    resnet, mlp = available()["resnet18"], available()["mlp"]
    assert attributes(resnet, ["shortcut=padding"]) == {"shortcut": "padding"}
    assert attributes(resnet, ["width=16", "shortcut=false", "stages=1+2+3"]) == {
        "width": 16,
        "shortcut": False,
        "stages": (1, 2, 3),
    }
    assert attributes(mlp, ["hidden=", "dropout=0.25"]) == {"hidden": (), "dropout": 0.25}
    assert attributes(mlp, []) == {}
    unet = available("segmentation")["unet"]
    texts = ["padding=same", "upsampling=bilinear", "depth=2"]  # choices among names
    assert attributes(unet, texts) == {"padding": "same", "upsampling": "bilinear", "depth": 2}
    with pytest.raises(UserError, match="'cubic' is no value of upsampling"):
        attributes(unet, ["upsampling=cubic"])
    on_backbone = available("segmentation")["unet_backbone"]
    assert attributes(on_backbone, ["backbone=resnet18"]) == {"backbone": "resnet18"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("widht=16", "Did you mean 'width'"),
        ("width", "NAME=VALUE"),
        ("width=wide", "'wide' is no value of width"),
        ("shortcut=maybe", "'maybe' is no value of shortcut"),
        ("num_classes=3", "NAME=VALUE is needed, of"),
    ],
)
def test_attributes_that_a_model_lacks_are_refused(text, said):
    with pytest.raises(UserError, match=said):
        attributes(available()["resnet18"], [text])


@pytest.mark.parametrize(
    ("model", "text", "said"),
    [
        ("mlp", "dropout=2", "dropout is at least 0 and below 1"),
        ("mlp", "dropout=nan", "dropout is at least 0 and below 1"),
        ("mlp", "hidden=8+-1", "hidden is not below 0"),
        ("resnet18", "width=-16", "width is not below 0"),
        ("mobilenet_v2", "width=inf", "width is finite and not below 0"),
        ("efficientnet_b0", "drop_path=1", "drop_path is at least 0 and below 1"),
    ],
)
def test_attributes_that_no_model_takes_are_refused(model, text, said):
    with pytest.raises(UserError, match=f"--model_options={re.escape(text)}: {said}"):
        attributes(available()[model], [text])
