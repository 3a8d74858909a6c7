"""The captioners' losses against plain loops over words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.data.text.tokens import PADDING
from research.losses.captioning import attention_penalty, caption_cross_entropy

TOKENS = np.array(
    [
        [[4, 2, 5, PADDING], [3, 1, PADDING, PADDING]],
        [[1, PADDING, PADDING, PADDING], [PADDING] * 4],
        [[PADDING] * 4, [PADDING] * 4],  # no sentence at all
    ]
)
LOGITS = np.random.default_rng(0).normal(size=(*TOKENS.shape, 6)).astype("f")
LOGITS[0, 0, 1] = np.eye(6)[2] * 9  # one word that is right, and its place counts


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_the_mean_over_an_images_words(smoothing):
    loss, right = jax.jit(caption_cross_entropy, static_argnames="label_smoothing")(
        LOGITS, TOKENS, label_smoothing=smoothing
    )
    for i, sentences in enumerate(TOKENS):
        nats, hits = [], []
        for k, sentence in enumerate(sentences):
            for t, word in enumerate(sentence):
                if word == PADDING:
                    continue
                p = np.exp(LOGITS[i, k, t]) / np.exp(LOGITS[i, k, t]).sum()
                target = (1 - smoothing) * np.eye(6)[word] + smoothing / 6
                nats.append(-(target * np.log(p)).sum())
                hits.append(LOGITS[i, k, t].argmax() == word)
        assert loss[i] == pytest.approx(np.sum(nats) / max(len(nats), 1), rel=1e-5)
        assert right[i] == pytest.approx(np.sum(hits) / max(len(hits), 1))
    assert 0 < right[0] < 1 and loss[2] == right[2] == 0


def test_padding_gets_no_gradient():
    gradient = jax.grad(lambda x: caption_cross_entropy(x, jnp.array(TOKENS))[0].sum())(
        jnp.array(LOGITS)
    )
    said = np.asarray(gradient).any(-1)
    np.testing.assert_array_equal(said, TOKENS != PADDING)


def test_attention_penalty_is_equation_14():
    attention = np.random.default_rng(1).dirichlet(np.ones(3), TOKENS.shape).astype("f")
    penalty = attention_penalty(jnp.array(attention), jnp.array(TOKENS))
    for i, sentences in enumerate(TOKENS):
        values = []
        for k, sentence in enumerate(sentences):
            words = [t for t, word in enumerate(sentence) if word != PADDING]
            if words:
                looked = sum(attention[i, k, t] for t in words)
                values.append(sum((1 - looked[place]) ** 2 for place in range(3)))
        assert penalty[i] == pytest.approx(np.mean(values) if values else 0, rel=1e-5)
