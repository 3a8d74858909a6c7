"""MobileNets and EfficientNets: published sizes, gradients everywhere, what scaling does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import check_gradients, drawn

from research.models import available, count_parameters, create
from research.models.efficientnet import STAGES
from research.models.mobilenet import V1_STAGES, V3_LARGE, V3_SMALL
from research.nn.initialisers import INITIALISERS
from research.nn.mobile import divisible

SHALLOW = {"width": 0.25, "stages": STAGES[:3:2]}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("mobilenet_v1", 4_231_976),
        ("mobilenet_v2", 3_504_872),
        ("mobilenet_v3_small", 2_542_856),
        ("mobilenet_v3_large", 5_483_032),
        ("efficientnet_b0", 5_288_548),
        pytest.param("efficientnet_b1", 7_794_184, marks=pytest.mark.families),
        pytest.param("efficientnet_b2", 9_109_994, marks=pytest.mark.families),
        ("efficientnet_b3", 12_233_232),
        pytest.param("efficientnet_b4", 19_341_616, marks=pytest.mark.families),
        pytest.param("efficientnet_b5", 30_389_784, marks=pytest.mark.families),
        ("efficientnet_b7", 66_347_960),
        ("efficientnet_lite0", 4_652_008),
    ],
)
def test_the_published_number_of_parameters(name, count):
    entry = available()[name]
    zeros = INITIALISERS["zeros"]  # quick to trace
    assert count_parameters(entry._replace(make=lambda: entry.make(kernel_init=zeros))) == count


# Howard et al. 2017, table 6, and Sandler et al. 2018, table 4, say millions of parameters.
@pytest.mark.parametrize(
    ("name", "width", "millions"),
    [
        ("mobilenet_v1", 0.75, 2.6),
        ("mobilenet_v1", 0.5, 1.3),
        ("mobilenet_v1", 0.25, 0.5),
        ("mobilenet_v2", 1.4, 6.9),
    ],
)
def test_the_width_multiplier_scales_as_published(name, width, millions):
    entry = available()[name]
    count = count_parameters(entry._replace(make=lambda: create(name, width=width)))
    assert count / 1e6 == pytest.approx(millions, rel=0.12)


def test_widths_round_to_multiples_of_eight_never_far_below():
    assert [divisible(n) for n in (8, 11, 12, 16, 24 * 1.4, 32 * 1.1)] == [8, 16, 16, 16, 32, 32]
    for channels in np.linspace(4, 400, 500):
        rounded = divisible(float(channels))
        assert rounded % 8 == 0 and rounded >= 0.9 * channels


@pytest.mark.parametrize(
    "name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"]
)
def test_features_halve_from_stage_to_stage(name):
    found = {}

    def run(image):
        model = create(name, kernel_init=INITIALISERS["zeros"])
        maps, variables = model.init_with_output(jax.random.key(0), image, features=True)
        assert not any("classifier" in key for key in variables["params"])
        found.update(maps)

    jax.eval_shape(run, jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    assert [(k, v.shape[1]) for k, v in found.items()] == [
        (f"stage{i}", 224 >> i) for i in range(1, 6)
    ]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenet_v1", {"width": 0.25, "stages": V1_STAGES[:2]}),
        ("mobilenet_v2", {"width": 0.25, "stages": ((1, 16, 1, 1), (6, 24, 2, 2))}),
        ("mobilenet_v3_small", {"width": 0.25, "blocks": V3_SMALL[:4:3]}),
        ("mobilenet_v3_large", {"width": 0.25, "blocks": V3_LARGE[2:8:3]}),
        ("efficientnet_b0", SHALLOW),
        ("efficientnet_lite0", SHALLOW),
    ],
)
def test_every_parameter_gets_a_gradient(name, options):
    model = create(name, num_classes=3, **options)
    images = jnp.array(np.random.default_rng(0).normal(size=(4, 32, 32, 1)), "f")
    variables = drawn(jax.eval_shape(model.init, jax.random.key(0), images))

    def loss(params):
        logits, _ = model.apply(
            {**variables, "params": params},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )
        return -jax.nn.log_softmax(logits)[:, 0].mean()

    check_gradients(loss, variables["params"])
