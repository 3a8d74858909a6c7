"""What must hold of every architecture: published sizes, gradients everywhere, named stages."""

import jax
import jax.numpy as jnp
import pytest

from research.errors import UserError
from research.models import available, create


def parameters(model, image_size, channels):
    image = jax.ShapeDtypeStruct((1, image_size, image_size, channels), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        ("lenet5", 10, 61_706),
        ("resnet18", 1000, 11_689_512),
        ("resnet34", 1000, 21_797_672),
        ("resnet50", 1000, 25_557_032),
        ("resnet101", 1000, 44_549_160),
    ],
)
def test_the_published_number_of_parameters(name, classes, count):
    entry = available()[name]
    assert parameters(create(name, num_classes=classes), entry.image_size, entry.channels) == count


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'resnet18'"):
        create("resnet_18")
