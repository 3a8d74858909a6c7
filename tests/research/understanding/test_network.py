"""Layers by name, whatever applies the model, and the units that flags ask for."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import models
from research.errors import UserError
from research.nn.initialisers import INITIALISERS
from research.understanding.network import ImageNetwork, layer_shapes, layers_of, observe
from research.understanding.relu_rules import with_rule
from research.understanding.target import Target, check_rule, choose_target, last_maps, score_layer


class Block(nn.Module):
    activation: object = nn.relu

    @nn.compact
    def __call__(self, x):
        shared = nn.Dense(4, name="shared")
        return self.activation(shared(self.activation(shared(x))))


class Model(nn.Module):
    activation: object = nn.relu

    @nn.compact
    def __call__(self, x):
        x = self.activation(nn.Conv(4, (3, 3), name="conv")(x))
        x = Block(self.activation, name="block")(x)
        scan = nn.scan(
            lambda layer, carry, _: (layer(carry), None),
            variable_broadcast="params",
            split_rngs={"params": False},
            length=2,
        )
        x, _ = scan(nn.Dense(4, name="looped"), x, None)
        return nn.Dense(3, name="head")(x.mean((1, 2)))


@pytest.fixture(scope="module")
def network():
    model = Model()
    variables = model.init(jax.random.key(0), jnp.zeros((1, 6, 5, 2)))
    return ImageNetwork(
        lambda v, x: nn.softmax(model.apply(v, x)),
        variables,
        ("goose", "heron", "crane"),
        (6, 5, 2),
    )


def test_every_layer_has_a_name_and_repeated_ones_a_number(network):
    assert layer_shapes(network) == {
        "conv": (1, 6, 5, 4),
        "activation": (1, 6, 5, 4),
        "block/shared": (1, 6, 5, 4),
        "block/activation": (1, 6, 5, 4),
        "block/shared#2": (1, 6, 5, 4),
        "block/activation#2": (1, 6, 5, 4),
        "block": (1, 6, 5, 4),
        "head": (1, 3),  # the scan's layer has no single value
        "outputs": (1, 3),
    }
    assert score_layer(network, layer_shapes(network)) == "head"


def test_values_are_those_of_flaxs_own_capture(network):
    x = jax.random.normal(jax.random.key(1), (2, 6, 5, 2))
    _, captured = Model().apply(network.variables, x, capture_intermediates=True)
    found = jax.jit(lambda x: layers_of(network, x))(x)
    inner = captured["intermediates"]
    np.testing.assert_allclose(found["conv"], inner["conv"]["__call__"][0], atol=1e-6)
    first, second = inner["block"]["shared"]["__call__"]
    np.testing.assert_allclose(found["block/shared"], first, atol=1e-6)
    np.testing.assert_allclose(found["block/shared#2"], second, atol=1e-6)
    np.testing.assert_allclose(found["block/activation"], np.maximum(first, 0), atol=1e-6)


def test_a_change_reaches_what_comes_after_and_leaves_no_trace(network):
    x = jax.random.normal(jax.random.key(1), (2, 6, 5, 2))
    plain = layers_of(network, x)
    changed = layers_of(network, x, changes={"block/shared#2": lambda v: 0 * v})
    assert not changed["block/activation#2"].any()
    np.testing.assert_array_equal(changed["block/shared"], plain["block/shared"])
    np.testing.assert_array_equal(layers_of(network, x)["head"], plain["head"])
    model = Model()
    observe(lambda x: model.apply(network.variables, x), x, rule="guided")
    assert model.activation is nn.relu


def test_rules_are_the_papers_on_paper_numbers():
    x, g = jnp.array([-1.0, 2.0, 7.0, 3.0]), jnp.array([5.0, -4.0, 3.0, 2.0])
    expected = {
        ("plain", nn.relu): [0, -4, 3, 2],
        ("deconvnet", nn.relu): [5, 0, 3, 2],
        ("guided", nn.relu): [0, 0, 3, 2],
        ("plain", nn.relu6): [0, -4, 0, 2],
        ("deconvnet", nn.relu6): [5, 0, 3, 2],
        ("guided", nn.relu6): [0, 0, 0, 2],
    }
    for (rule, activation), gradient in expected.items():
        value, pull = jax.vjp(with_rule(activation, rule), x)
        np.testing.assert_array_equal(value, activation(x))
        np.testing.assert_array_equal(pull(g)[0], gradient)


def test_targets_by_class_layer_and_unit(network):
    x = jax.random.normal(jax.random.key(1), (2, 6, 5, 2))
    layers = layers_of(network, x)
    heron = choose_target(network, class_name="Heron")
    assert heron == Target("head", 1) == choose_target(network, class_name="1")
    np.testing.assert_allclose(heron.value(layers), layers["head"][:, 1])
    unit = choose_target(network, "conv", 2, centre=True)
    np.testing.assert_allclose(unit.value(layers), layers["conv"][:, 3, 2, 2])
    channel = choose_target(network, "conv", 2)
    np.testing.assert_allclose(
        channel.value(layers), layers["conv"][..., 2].mean((1, 2)), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layer": "blok"}, "Did you mean 'block'"),
        ({"layer": "conv", "unit": 4}, "--unit=4: the layer conv has units 0 to 3"),
        ({"class_name": "hern"}, "Did you mean 'heron'"),
        ({"class_name": "heron", "layer": "conv"}, "instead of --layer"),
    ],
)
def test_what_is_not_there_is_refused_with_the_nearest_name(network, options, said):
    with pytest.raises(UserError, match=said):
        choose_target(network, **options)


def test_rules_need_a_relu_that_is_an_argument(network):
    check_rule(network, "guided")
    smooth = ImageNetwork(
        Model(nn.silu).apply, network.variables, network.class_names, network.image_shape
    )
    with pytest.raises(UserError, match="activation is silu"):
        check_rule(smooth, "guided")

    class Fixed(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.relu(nn.Dense(3, name="head")(x.mean((1, 2))))

    fixed = Fixed()
    variables = fixed.init(jax.random.key(0), jnp.zeros((1, 6, 5, 2)))
    without = ImageNetwork(fixed.apply, variables, (), (6, 5, 2))
    with pytest.raises(UserError, match="takes no activation function as an argument"):
        check_rule(without, "guided")
    with pytest.raises(UserError, match="no layer with a unit for each class"):
        choose_target(without)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_every_use_of_the_activation_in_a_real_model_is_observed(name):
    model = models.create(name, num_classes=5, kernel_init=INITIALISERS["zeros"])
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), variables)
    uses = []

    def counted(x):
        uses.append(x.shape)
        return model.activation(x)

    jax.eval_shape(model.clone(activation=counted).apply, variables, image)
    shapes = layer_shapes(ImageNetwork(model.apply, variables, (), (32, 32, 3)))
    found = [s for n, s in shapes.items() if n.rpartition("/")[2].startswith("activation")]
    assert found == uses and len(uses) > 16


def test_what_is_predicted_can_be_asked_about_by_its_name(network):
    def predict(variables, x):
        return {
            "embedding": Model().apply(variables, x),
            "log_probability": x.sum((1, 2, 3)),
            "tokens": jnp.zeros((len(x), 4), jnp.int32),
        }

    x = jax.random.normal(jax.random.key(1), (2, 6, 5, 2))
    asked = ImageNetwork(predict, network.variables, (), (6, 5, 2))
    layers = layers_of(asked, x)
    assert [n for n in layers if n.startswith("outputs")] == [
        "outputs/embedding",
        "outputs/log_probability",
    ]
    target = choose_target(asked, "outputs/log_probability", 0)
    np.testing.assert_allclose(target.value(layers), x.sum((1, 2, 3)), rtol=1e-5)


def test_grad_cam_weights_the_coarsest_maps_before_the_target():
    shapes = {
        "down": (1, 16, 16, 4),
        "bottom": (1, 4, 4, 8),
        "bottom/activation": (1, 4, 4, 8),
        "up": (1, 16, 16, 4),
        "head": (1, 16, 16, 3),
        "outputs": (1, 16, 16, 3),
    }
    for layer in ("head", "outputs", "up"):
        assert last_maps(shapes, Target(layer, 0)) == "bottom/activation"
    assert last_maps(shapes, Target("bottom", 0)) == "down"
    with pytest.raises(UserError, match="no maps before down"):
        last_maps(shapes, Target("down", 0))


def test_names_may_be_of_a_prediction(network):
    def predict(variables, x):
        scores = Model().apply(variables, x)
        return {"words": jnp.concatenate([scores, scores], 1)}

    names = tuple("abcdef")
    asked = ImageNetwork(predict, network.variables, names, (6, 5, 2), class_layer="outputs/words")
    x = jax.random.normal(jax.random.key(1), (2, 6, 5, 2))
    target = choose_target(asked, class_name="e")
    assert target == Target("outputs/words", 4)
    np.testing.assert_allclose(
        target.value(layers_of(asked, x)), layers_of(network, x)["head"][:, 1], rtol=1e-5
    )


def test_what_has_no_gradient_is_refused(network):
    def predict(variables, x):
        total = Model().apply(variables, x)
        return jax.lax.while_loop(lambda s: (s < 1).any(), lambda s: s + 1, total)

    asked = ImageNetwork(predict, network.variables, (), (6, 5, 2))
    with pytest.raises(UserError, match="--layer=outputs: has no gradient"):
        choose_target(asked, "outputs", 0)
