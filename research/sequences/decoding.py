"""Decodes sequences from a model that predicts the next token: greedy, beam search, sampling.

All inside jit, of fixed shapes. A decoded sequence is int32 [length]: tokens, then `end`, then
zeros; without `end` if `length` was too short.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.sequences.config import DecodingConfig

State = Any  # a tree of arrays that lead with [B]
# (state, token int32 [B]) -> (next state, logits [B, V] of the token that follows)
Step = Callable[[State, Array], tuple[State, Array]]
Choose = Callable[[Array, Array], Array]  # (log-probabilities [B, V], position []) -> int32 [B]


class Decoded(NamedTuple):
    """The best sequence of each example."""

    tokens: Int[Array, "batch length"]
    log_probability: Float[Array, " batch"]  # of the whole sequence, natural logarithm


def decode(
    options: DecodingConfig,
    step: Step,
    state: State,
    begin: Int[Array, " batch"],
    end: int,
    length: int,
    keys: Array,
) -> Decoded:
    """Decodes sequences as the options say; see `greedy`, `beam_search` and `sample`.

    Args:
      keys: one random key for each sequence, which sampling alone uses.
    """
    given = (step, state, begin, end, length)
    if options.decoding == "beam":
        return beam_search(*given, options.beam_width, options.length_penalty)
    if options.decoding == "sample":
        return sample(*given, keys, options.temperature)
    return greedy(*given)


def protocol(options: DecodingConfig) -> str:
    """Describes the way of decoding in words, to print beside a metric."""
    return {
        "greedy": "greedy decoding",
        "beam": f"beam search of width {options.beam_width}, "
        f"log p / words^{options.length_penalty:g}",
        "sample": f"sampled at temperature {options.temperature:g}",
    }[options.decoding]


class _Progress(NamedTuple):
    position: Array  # int32 []
    state: State
    token: Array  # int32 [B], the last one
    done: Array  # bool [B]
    tokens: Array  # int32 [B, length]
    log_probability: Array  # float32 [B]


def _decode(
    step: Step, state: State, begin: Int[Array, " batch"], end: int, length: int, choose: Choose
) -> Decoded:
    """Appends the tokens that `choose` returns, until every sequence has ended or has `length`."""
    batch = len(begin)

    def more(now: _Progress) -> Array:
        return (now.position < length) & ~now.done.all()

    def body(now: _Progress) -> _Progress:
        state, logits = step(now.state, now.token)
        log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
        token = jnp.where(now.done, 0, choose(log_p, now.position))
        gained = jnp.take_along_axis(log_p, token[:, None], axis=1)[:, 0]
        return _Progress(
            now.position + 1,
            state,
            token,
            now.done | (token == end),
            jax.lax.dynamic_update_slice_in_dim(now.tokens, token[:, None], now.position, axis=1),
            now.log_probability + jnp.where(now.done, 0.0, gained),
        )

    first = _Progress(
        jnp.int32(0),
        state,
        begin,
        jnp.zeros(batch, bool),
        jnp.zeros((batch, length), jnp.int32),
        jnp.zeros(batch, jnp.float32),
    )
    last = jax.lax.while_loop(more, body, first)
    return Decoded(last.tokens, last.log_probability)


def greedy(step: Step, state: State, begin: Int[Array, " batch"], end: int, length: int) -> Decoded:
    """Takes the most probable token at each step.

    Args:
      step: the model; see Step. It must leave log-probability 0 (padding) and `begin` unlikely by
        itself, or give them logits of -inf.
      state: before the first token.
      begin: the token before the first token of each sequence.
      end: the token that ends a sequence; -1 for none.
      length: the most tokens, `end` included.
    """
    return _decode(
        step, state, begin, end, length, lambda log_p, _: log_p.argmax(-1).astype(jnp.int32)
    )


def sample(
    step: Step,
    state: State,
    begin: Int[Array, " batch"],
    end: int,
    length: int,
    keys: Array,
    temperature: float = 1.0,
) -> Decoded:
    """Draws each token with probability proportional to p ** (1 / temperature).

    Args:
      keys: one random key for each sequence, so that a draw does not depend on the batch.
      temperature: above 0; 1 draws from the model itself, near 0 is greedy, large is uniform.
    """

    def choose(log_p: Array, position: Array) -> Array:
        here = jax.vmap(jax.random.fold_in, (0, None))(keys, position)
        drawn = jax.vmap(jax.random.categorical)(here, log_p / temperature)
        return drawn.astype(jnp.int32)

    return _decode(step, state, begin, end, length, choose)


class _Beams(NamedTuple):
    position: Array  # int32 []
    state: State  # [B, K, ...]
    token: Array  # int32 [B, K]
    done: Array  # bool [B, K]
    tokens: Array  # int32 [B, K, length]
    log_probability: Array  # float32 [B, K]
    lengths: Array  # int32 [B, K], `end` included


def beam_search(
    step: Step,
    state: State,
    begin: Int[Array, " batch"],
    end: int,
    length: int,
    width: int,
    alpha: float = 0.7,
) -> Decoded:
    """Keeps the `width` best sequences, finished and unfinished ones in one list.

    Sequences are compared by log p / n^alpha with n tokens, `end` included: without it (alpha 0)
    each further token can only lower the score, and short sentences win (Wu et al. 2016, section
    7, whose form is ((5 + n) / 6)^alpha). Width 1 is greedy; a width that holds all possible
    sequences finds the best of all.

    Returns:
      The best finished sequence of each example; where none has ended, the best.
    """
    batch = len(begin)
    rows = jnp.arange(batch)[:, None]

    def score(log_probability: Array, lengths: Array) -> Array:
        return log_probability / jnp.maximum(lengths, 1).astype(jnp.float32) ** alpha

    def flat(tree: State) -> State:  # [B, K, ...] -> [B K, ...]
        return jax.tree.map(lambda x: x.reshape(batch * width, *x.shape[2:]), tree)

    def more(now: _Beams) -> Array:
        return (now.position < length) & ~now.done.all()

    def body(now: _Beams) -> _Beams:
        state, logits = step(flat(now.state), now.token.reshape(-1))
        log_p = jax.nn.log_softmax(logits.astype(jnp.float32)).reshape(batch, width, -1)
        vocabulary = log_p.shape[-1]
        # A finished sequence continues in one way, with a zero of no cost that does not count.
        stay = jnp.where(jnp.arange(vocabulary) == 0, 0.0, -jnp.inf)
        log_p = now.log_probability[..., None] + jnp.where(now.done[..., None], stay, log_p)
        lengths = now.lengths + ~now.done  # [B, K]
        candidates = score(log_p, lengths[..., None]).reshape(batch, -1)  # [B, K V]
        _, best = jax.lax.top_k(candidates, width)
        parent, token = best // vocabulary, (best % vocabulary).astype(jnp.int32)
        state = jax.tree.map(lambda x: x.reshape(batch, width, *x.shape[1:])[rows, parent], state)
        tokens = now.tokens[rows, parent].at[:, :, now.position].set(token)
        return _Beams(
            now.position + 1,
            state,
            token,
            now.done[rows, parent] | (token == end),
            tokens,
            log_p.reshape(batch, -1)[rows, best],
            lengths[rows, parent],
        )

    # All beams are the same before the first token: only one may count.
    alone = jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf)
    first = _Beams(
        jnp.int32(0),
        jax.tree.map(lambda x: jnp.repeat(x[:, None], width, axis=1), state),
        jnp.repeat(begin[:, None], width, axis=1),
        jnp.zeros((batch, width), bool),
        jnp.zeros((batch, width, length), jnp.int32),
        jnp.tile(alone, (batch, 1)),
        jnp.zeros((batch, width), jnp.int32),
    )
    last = jax.lax.while_loop(more, body, first)
    final = score(last.log_probability, last.lengths)
    ended = jnp.where(last.done, final, -jnp.inf)
    final = jnp.where((ended > -jnp.inf).any(1, keepdims=True), ended, final)
    best = final.argmax(1)
    every = jnp.arange(batch)
    return Decoded(last.tokens[every, best], last.log_probability[every, best])
