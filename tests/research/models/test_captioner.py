import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.data.text.tokens import BEGIN, END, PADDING, UNKNOWN
from research.models import available, create
from research.sequences.decoding import greedy

WORDS, LENGTH = 11, 5
SMALL = {"embedding": 6, "features": 8, "backbone_name": "convnet"}
ALL = pytest.mark.parametrize("name", sorted(available("captioning")))
ATTENDING = pytest.mark.parametrize("name", ["show_attend_and_tell", "spatial_attention"])


def images(count=3, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(count, 16, 16, 3)), jnp.float32)


def captions(count=3, per_image=2, seed=0):
    drawn = np.random.default_rng(seed).integers(4, WORDS, (count, per_image, LENGTH))
    return jnp.asarray(drawn, jnp.int32)


@functools.cache
def made(name, **attributes):
    model = create(name, vocabulary=WORDS, **{**SMALL, **attributes})
    return model, jax.jit(model.init)(jax.random.key(0), images(), captions())


@functools.cache
def told(name):
    """A model's variables and its jitted (images, captions) -> logits, attention."""
    model, variables = made(name)
    return jax.jit(lambda images, tokens: model.apply(variables, images, tokens))


def encoded(model, variables, images):
    """The decoder's state before the first word."""
    return model.apply(variables, model.apply(variables, images, method="maps"), method="begin")


@ALL
def test_every_parameter_gets_a_gradient(name):
    model, variables = made(name)
    state = {k: v for k, v in variables.items() if k != "params"}

    def loss(params):
        logits, _ = model.apply({"params": params, **state}, images(), captions())
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), captions()[..., None], -1)
        return -picked.mean()

    grads = jax.jit(jax.grad(loss))(variables["params"])
    for path, g in jax.tree_util.tree_leaves_with_path(grads):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(g).all() and (np.any(g) or "['fc']" in name or "query" in name), name
    assert "backbone" in grads


@pytest.mark.parametrize(
    "name",
    [
        "show_attend_and_tell",
        *(
            pytest.param(name, marks=pytest.mark.families)
            for name in ("show_and_tell", "spatial_attention")
        ),
    ],
)
def test_one_word_at_a_time_is_the_whole_caption(name):
    model, variables = made(name, cell="gru", layers=2)
    tokens = captions()
    logits, _ = jax.jit(model.apply)(variables, images(), tokens)
    step = jax.jit(lambda *inputs: model.apply(variables, *inputs, method="step"))
    for k in range(tokens.shape[1]):
        state = encoded(model, variables, images())
        token = jnp.full(len(tokens), BEGIN)
        for t in range(LENGTH):
            state, step_logits = step(state, token)
            allowed = np.array([END, *range(4, WORDS)])
            np.testing.assert_allclose(
                step_logits[:, allowed], logits[:, k, t, allowed], rtol=2e-4, atol=1e-5
            )
            token = tokens[:, k, t]


@ALL
def test_a_word_does_not_depend_on_those_after_it(name):
    changed = captions().at[:, :, 3].set(4)
    before, after = (told(name)(images(), tokens)[0] for tokens in (captions(), changed))
    np.testing.assert_array_equal(before[:, :, :4], after[:, :, :4])
    assert np.any(before[:, :, 4] != after[:, :, 4])


@ALL
def test_captions_depend_on_their_own_picture_alone(name):
    logits, _ = told(name)(images(), captions())
    changed, _ = told(name)(images().at[1].set(0.0), captions())
    np.testing.assert_allclose(logits[::2], changed[::2], rtol=1e-5, atol=1e-6)
    assert np.abs(logits[1] - changed[1]).max() > 1e-4


@ATTENDING
def test_attention_is_a_distribution_over_places_and_follows_the_picture(name):
    tell = told(name)
    _, attention = tell(images(), captions())
    assert attention.shape == (3, 2, LENGTH, 16)  # the last map of 16 x 16 pixels is 4 x 4
    np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)
    _, others = tell(images(seed=1), captions())
    assert np.abs(attention - others).max() > 1e-4


def test_attention_is_softmax_of_scaled_dot_products_by_a_loop():
    model, variables = made("show_attend_and_tell")
    state = encoded(model, variables, images())
    _, attention = told("show_attend_and_tell")(images(), captions())
    query = variables["params"]["decoder"]["query"]
    h = state["recurrent"][0][0]
    for b in range(3):
        q = np.asarray(h[b]) @ np.asarray(query["kernel"]) + np.asarray(query["bias"])
        scores = np.array([q @ np.asarray(key) / np.sqrt(6) for key in state["keys"][b]])
        expected = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(attention[b, 0, 0], expected, rtol=1e-4)


@ALL
def test_words_beyond_the_vocabulary_are_read_as_unknown(name):
    rare, unknown = (captions().at[:, :, 1].set(t) for t in (WORDS + 5, UNKNOWN))
    np.testing.assert_array_equal(told(name)(images(), rare)[0], told(name)(images(), unknown)[0])


@ALL
def test_decoding_says_only_words(name):
    model, variables = made(name)

    @jax.jit
    def decode(images):
        state = encoded(model, variables, images)
        begin = jnp.full(len(images), BEGIN)
        step = lambda state, token: model.apply(variables, state, token, method="step")
        return greedy(step, state, begin, END, 7).tokens

    tokens = np.asarray(decode(images()))
    assert not np.isin(tokens, [BEGIN, UNKNOWN]).any()
    for row in tokens:
        length = list(row).index(END) + 1 if END in row else len(row)
        assert PADDING not in row[:length] and not row[length:].any()


@ALL
def test_dropout_acts_in_training_alone(name):
    model, variables = made(name, dropout=0.5)

    @functools.partial(jax.jit, static_argnums=0)
    def logits(train, key=0):
        rngs = {"dropout": jax.random.key(key)}
        (logits, _), _ = model.apply(
            variables, images(), captions(), train=train, rngs=rngs, mutable=["batch_stats"]
        )
        return logits

    np.testing.assert_array_equal(logits(False), logits(False, 1))
    assert np.any(logits(True) != logits(True, 1))


def test_where_to_look_depends_on_the_last_word_read_or_only_on_those_before():
    """What Lu et al. 2017 changed: after "a red", the red place can be looked at for its digit."""
    changed = captions().at[:, :, 2].set(4)  # read before word 3 is said

    def moved(name):
        before, after = (told(name)(images(), tokens)[1] for tokens in (captions(), changed))
        return np.abs(before - after).max(axis=(0, 1, 3)) > 1e-6  # by word

    np.testing.assert_array_equal(moved("spatial_attention"), [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(moved("show_attend_and_tell"), [0, 0, 0, 0, 1])


def test_another_map_of_the_encoder_can_be_looked_at():
    _, variables = made("show_attend_and_tell", feature_map="stage1")
    assert variables["params"]["decoder"]["places"]["position"].shape == (64, 6)
