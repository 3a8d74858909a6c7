import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.sequences.decoding import beam_search, greedy, sample

BEGIN, END, WORDS, LENGTH = 1, 2, 5, 4  # tokens: 0 padding, 1 begin, 2 end, 3 and 4 words


def markov(seed, batch=3, sharpness=2.0):
    """A second-order model that differs from example to example: [B, V, V, V] logits."""
    logits = np.random.default_rng(seed).normal(0, sharpness, (batch, WORDS, WORDS, WORDS))
    logits[..., [0, BEGIN]] = -np.inf
    return jnp.asarray(logits, jnp.float32)


def step(state, token):
    table, before = state
    rows = jnp.arange(len(token))
    return (table, token), table[rows, before, token]


def start(table):
    begin = jnp.full(len(table), BEGIN, jnp.int32)
    return (table, jnp.zeros(len(table), jnp.int32)), begin


def log_probability(table, sequence):
    """By the definition: the sum over tokens, `end` included."""
    total, before, token = 0.0, 0, BEGIN
    for following in sequence:
        log_p = np.asarray(jax.nn.log_softmax(table[before, token]))
        total, before, token = total + float(log_p[following]), token, following
    return total


def every_sequence():
    """All that end within LENGTH tokens."""
    for n in range(LENGTH):
        for words in itertools.product((3, 4), repeat=n):
            yield (*words, END)


def unpadded(tokens):
    tokens = [int(t) for t in tokens]
    return tuple(tokens[: tokens.index(END) + 1] if END in tokens else tokens)


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(2))
def test_a_beam_that_holds_everything_finds_the_best_of_all(seed, alpha):
    table = markov(seed)
    state, begin = start(table)
    decode = jax.jit(lambda s, b: beam_search(step, s, b, END, LENGTH, width=31, alpha=alpha))
    decoded = decode(state, begin)
    for i in range(len(table)):
        scores = {s: log_probability(table[i], s) / len(s) ** alpha for s in every_sequence()}
        best = max(scores, key=scores.get)
        assert unpadded(decoded.tokens[i]) == best
        np.testing.assert_allclose(
            decoded.log_probability[i], log_probability(table[i], best), rtol=1e-4
        )


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_beam_of_one_is_greedy(alpha):
    table = markov(0, batch=64, sharpness=1.0)
    one = beam_search(step, *start(table), END, 9, width=1, alpha=alpha)
    best = greedy(step, *start(table), END, 9)
    np.testing.assert_array_equal(one.tokens, best.tokens)
    np.testing.assert_allclose(one.log_probability, best.log_probability, rtol=1e-5)


def test_wider_beams_score_at_least_as_well_on_average():
    table = markov(1, batch=128, sharpness=1.0)
    means = [
        float(beam_search(step, *start(table), END, 30, w, 0.0).log_probability.mean())
        for w in (1, 3, 16)
    ]
    assert means[0] < means[1] < means[2]


def test_length_normalisation_prefers_longer_sentences():
    table = markov(2, batch=128, sharpness=0.5)
    lengths = [
        np.mean([len(unpadded(t)) for t in beam_search(step, *start(table), END, 4, 31, a).tokens])
        for a in (0.0, 1.0)
    ]
    assert lengths[1] > lengths[0] + 0.5


def test_greedy_takes_the_most_probable_and_stops():
    table = markov(3)
    decoded = jax.jit(lambda s, b: greedy(step, s, b, END, 8))(*start(table))
    for i in range(len(table)):
        before, token, expected = 0, BEGIN, []
        while token != END and len(expected) < 8:
            before, token = token, int(table[i, before, token].argmax())
            expected.append(token)
        assert unpadded(decoded.tokens[i]) == tuple(expected)
        assert not np.any(decoded.tokens[i, len(expected) :])
        np.testing.assert_allclose(
            decoded.log_probability[i], log_probability(table[i], expected), rtol=1e-4
        )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampling_draws_in_proportion_to_the_tempered_probabilities(temperature):
    table = jnp.repeat(markov(4, batch=1, sharpness=1.0), 8_000, axis=0)
    keys = jax.random.split(jax.random.key(0), len(table))
    tokens = sample(step, *start(table), END, 2, keys, temperature).tokens
    p = np.asarray(jax.nn.softmax(table[0, 0, BEGIN] / temperature))
    counts = np.bincount(np.asarray(tokens[:, 0]), minlength=WORDS) / len(table)
    np.testing.assert_allclose(counts, p, atol=0.02)


def test_a_draw_does_not_depend_on_the_batch():
    table = markov(5, batch=6)
    keys = jax.random.split(jax.random.key(1), 6)
    whole = sample(step, *start(table), END, LENGTH, keys).tokens
    part = sample(step, *start(table[2:4]), END, LENGTH, keys[2:4]).tokens
    np.testing.assert_array_equal(whole[2:4], part)


def test_without_an_end_token_every_sequence_has_the_full_length():
    tokens = greedy(step, *start(markov(6)), -1, 7).tokens
    assert (tokens != 0).all()


def test_what_never_ends_is_given_back_whole():
    table = markov(7).at[..., END].set(-jnp.inf)
    tokens = beam_search(step, *start(table), END, LENGTH, width=3).tokens
    assert tokens.shape == (3, LENGTH) and (tokens > END).all()
