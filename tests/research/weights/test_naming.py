import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import UserError
from research.weights import into


class Net(nn.Module):
    classes: int = 5

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (2, 3), name="features_0")(x)
        x = nn.BatchNorm(use_running_average=True, name="bn")(x)
        return nn.Dense(self.classes, name="fc")(x.mean((1, 2)))


def variables(classes=5):
    return Net(classes).init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))


def tensors(classes=5):
    shapes = {
        "features.0.weight": (4, 3, 2, 3),
        "features.0.bias": (4,),
        "bn.weight": (4,),
        "bn.bias": (4,),
        "bn.running_mean": (4,),
        "bn.running_var": (4,),
        "fc.weight": (classes, 4),
        "fc.bias": (classes,),
    }
    rng = np.random.default_rng(0)
    drawn = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return drawn | {"bn.num_batches_tracked": np.array(3)}


def test_every_variable_gets_its_tensor():
    given = tensors()
    filled, fresh, outputs = into(variables(), given)
    params, stats = filled["params"], filled["batch_stats"]
    assert fresh == () and outputs is None
    kernel = given["features.0.weight"]
    for o, i, row, column in np.ndindex(kernel.shape):
        assert params["features_0"]["kernel"][row, column, i, o] == np.float32(
            kernel[o, i, row, column]
        )
    np.testing.assert_array_equal(params["fc"]["kernel"], given["fc.weight"].T.astype("f"))
    for name, value in (
        ("features.0.bias", params["features_0"]["bias"]),
        ("bn.weight", params["bn"]["scale"]),
        ("bn.bias", params["bn"]["bias"]),
        ("bn.running_mean", stats["bn"]["mean"]),
        ("bn.running_var", stats["bn"]["var"]),
        ("fc.bias", params["fc"]["bias"]),
    ):
        assert value.dtype == jnp.float32
        np.testing.assert_array_equal(value, given[name].astype("f"), err_msg=name)


def message(given, **options):
    with pytest.raises(UserError) as error:
        into(variables(), given, source="a.pth", **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_each_problem_is_listed_once_with_the_nearest_name():
    given = tensors()
    given["fc.weights"] = given.pop("fc.weight")
    given["bn.bias"] = np.zeros(7)
    given["features.0.weight"] = np.zeros((4, 3, 3, 2))
    del given["bn.running_var"]
    text = message(given)
    assert text.startswith("a.pth: ")
    assert "fc_weight (nearest: fc.weights)" in text
    assert "fc.weights (nearest: fc_weight)" in text
    assert "bn_running_var (nearest: bn.running_mean)" in text
    assert "bn_bias (is (7,), not (4,))" in text
    assert "features_0_weight (is (4, 3, 3, 2), not (4, 3, 2, 3))" in text
    assert len(re.findall("bn_bias", text)) == 1


def test_weights_of_another_architecture_give_one_line_of_bounded_length():
    other = {f"layer{i}.conv1.weight": np.zeros((4, 3, 3, 3)) for i in range(200)}
    text = message(other)
    assert "and 195 more" in text and len(text) < 2000


def test_a_kernel_of_another_rank_is_a_wrong_shape():
    assert "fc_weight (is (5, 4, 1, 1), not (5, 4))" in message(
        tensors() | {"fc.weight": np.zeros((5, 4, 1, 1))}
    )


def test_a_new_head_keeps_its_initial_values_only_when_asked():
    given = tensors(classes=9)
    assert "fc_weight (is (9, 4), not (5, 4))" in message(given)
    start = variables()
    filled, fresh, outputs = into(start, given, new_head=True)
    assert fresh == ("fc",) and outputs == 9
    for leaf in ("kernel", "bias"):
        np.testing.assert_array_equal(filled["params"]["fc"][leaf], start["params"]["fc"][leaf])
    np.testing.assert_array_equal(filled["params"]["bn"]["bias"], given["bn.bias"].astype("f"))


def test_another_width_is_no_new_head():
    wide = tensors(classes=9)
    wide["features.0.bias"] = np.zeros(8)
    assert "features_0_bias" in message(wide, new_head=True)


def test_unused_tensors_are_refused_unless_named():
    given = tensors() | {"aux.conv.weight": np.zeros((1, 1, 1, 1))}
    assert "no place for aux.conv.weight" in message(given)
    into(variables(), given, unused="aux")
    assert "aux.conv.weight" in message(given, unused="conv")
