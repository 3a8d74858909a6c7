"""Evaluation is training's network (promise 15): for every model, detector and captioner.

Where two maps share one batch normalisation, each is trained on its own statistics and evaluated
with a mixture of both, which no gradient and no shape shows.
"""

import collections
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import drawn

from research.models import available, create
from research.models.efficientnet import STAGES
from research.nn.embedder import Embedder
from research.nn.initialisers import INITIALISERS
from research.nn.normalisation import BatchNorm, own_statistics


def random_images(count=4, size=32, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(count, size, size, channels)), jnp.float32)


def calls_of_each_layer(model, images, **arguments):
    """{path of a batch normalisation: how often a training pass calls it}, by tracing alone."""
    calls = collections.Counter()

    def interceptor(call, args, kwargs, context):
        if isinstance(context.module, BatchNorm) and context.method_name == "moments":
            calls["/".join(context.module.path)] += 1
        return call(*args, **kwargs)

    def run(images):
        rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        with nn.intercept_methods(interceptor):
            return model.init_with_output(rngs, images, train=True, **arguments)[0]

    jax.eval_shape(run, images)
    return calls


# EfficientNet-B1 to B7 are B0 with other numbers; language models read characters.
IMAGE_MODELS = [
    pytest.param(name, marks=pytest.mark.families)
    if "efficientnet_b" in name and name[-1] != "0"
    else name
    for name, entry in available(task=None).items()
    if entry.task != "language"
]


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_every_layer_normalises_one_map(name):
    entry = available(task=None)[name]
    smallest = entry.min_size if entry.min_size > 1 else entry.image_size
    size = entry.image_size if entry.fixed_size else smallest
    module = entry.make()
    if hasattr(module, "kernel_init"):
        module = module.clone(kernel_init=INITIALISERS["zeros"])
    shape = jax.ShapeDtypeStruct((2, size, size, entry.channels), jnp.float32)
    assert set(calls_of_each_layer(module, shape).values()) <= {1}


def test_every_layer_of_a_detector_on_several_strides_normalises_one_map():
    model = create("yolo", backbone="compact", strides=(4, 8), depth=2)
    calls = calls_of_each_layer(model, random_images())
    assert set(calls.values()) == {1}
    assert sum(path.startswith("head") for path in calls) == 4  # two convolutions on two strides


TOKENS = jnp.array(np.random.default_rng(1).integers(1, 49, (4, 2, 5)), jnp.int32)
CASES = {
    "convnet": (create("convnet", widths=(4, 8)), {}),
    "mlp": (create("mlp", hidden=(16,), normalise=True), {}),
    "resnet": (create("resnet18", width=4, stages=(1, 1, 1, 1)), {}),
    "efficientnet": (create("efficientnet_b0", width=0.25, stages=STAGES[:3:2]), {}),
    "unet": (create("unet_lean", width=4, num_classes=3), {}),
    "yolo on two strides": (create("yolo", strides=(4, 8), width=16), {}),
    "faster_rcnn": (create("faster_rcnn", width=16, head=16), {}),
    "sliding_windows": (create("sliding_windows"), {}),
    "captioner": (create("spatial_attention", embedding=8, features=8), {"tokens": TOKENS}),
    "embedder": (Embedder(functools.partial(create, "convnet", widths=(4, 8)), 8), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_evaluation_under_a_batch_s_statistics_is_training_on_that_batch(case):
    model, arguments = CASES[case]
    images = random_images()
    variables = drawn(
        jax.eval_shape(functools.partial(model.init, **arguments), jax.random.key(0), images)
    )

    def both(variables, images):
        with own_statistics():  # dropout is off in it
            trained, state = model.apply(
                variables, images, train=True, mutable=["batch_stats"], **arguments
            )
        evaluated = model.apply({"params": variables["params"], **state}, images, **arguments)
        return trained, evaluated

    trained, evaluated = jax.jit(both)(variables, images)
    for a, b in zip(jax.tree.leaves(trained), jax.tree.leaves(evaluated), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(a).max())


@pytest.mark.parametrize("case", CASES)
def test_an_image_s_outputs_do_not_depend_on_the_others_in_its_batch(case):
    model, arguments = CASES[case]
    images = random_images()
    variables = drawn(
        jax.eval_shape(functools.partial(model.init, **arguments), jax.random.key(0), images)
    )
    others = images.at[1:].set(random_images(3, seed=1) * 50 + 3)
    both = jax.jit(lambda v, a, b: [model.apply(v, x, **arguments) for x in (a, b)])
    one, two = both(variables, images, others)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a[0], b[0], rtol=1e-5, atol=1e-6)
