"""Tokens a second of a caption decoder: training, greedy decoding, beam search of width 5.

    python benchmarks/captioning.py

An embedding, one LSTM layer and a linear layer onto the words, against the same in PyTorch where
that is installed: in one process, in turns, the best of several runs each. Encoders are measured
by benchmarks/models.py.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from research.nn.recurrent import Recurrent
from research.sequences.decoding import beam_search, greedy

BEAM = 5


class Decoder(nn.Module):
    """Words to logits of the words that follow."""

    vocabulary: int
    embedding: int
    features: int

    def setup(self) -> None:
        self.words = nn.Embed(self.vocabulary, self.embedding)
        self.recurrent = Recurrent("lstm", self.embedding, self.features)
        self.logits = nn.Dense(self.vocabulary)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return self.logits(self.recurrent(self.words(tokens))[0])

    def step(self, states: Any, token: jax.Array) -> tuple[Any, jax.Array]:
        states, h = self.recurrent.step(states, self.words(token))
        return states, self.logits(h)


def ours(tokens: np.ndarray, sizes: tuple[int, int, int]) -> dict[str, Callable[[], None]]:
    """The three jobs in JAX, each ending when its result is there."""
    model = Decoder(*sizes)
    inputs, targets = jnp.asarray(tokens[:, :-1]), jnp.asarray(tokens[:, 1:])
    variables = jax.jit(model.init)(jax.random.key(0), inputs)
    zeros = (tuple(jnp.zeros((len(tokens), sizes[2])) for _ in range(2)),)
    begin = jnp.ones(len(tokens), jnp.int32)
    length = inputs.shape[1]

    @jax.jit
    def train(variables: Any) -> Any:
        def loss(variables: Any) -> jax.Array:
            logits = model.apply(variables, inputs)
            return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

        return jax.tree.map(lambda p, g: p - 0.1 * g, variables, jax.grad(loss)(variables))

    def step(state: Any, token: jax.Array) -> Any:
        return model.apply(variables, state, token, method="step")

    one = jax.jit(lambda: greedy(step, zeros, begin, -1, length).tokens)
    many = jax.jit(lambda: beam_search(step, zeros, begin, -1, length, BEAM).tokens)
    return {
        "training": lambda: jax.block_until_ready(train(variables)),
        "greedy": lambda: jax.block_until_ready(one()),
        f"beam {BEAM}": lambda: jax.block_until_ready(many()),
    }


def torchs(tokens: np.ndarray, sizes: tuple[int, int, int]) -> dict[str, Callable[[], None]]:
    """The same in PyTorch; empty where it is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    vocabulary, embedding, features = sizes
    words = torch.nn.Embedding(vocabulary, embedding)
    lstm = torch.nn.LSTM(embedding, features, batch_first=True)
    linear = torch.nn.Linear(features, vocabulary)
    parameters = [*words.parameters(), *lstm.parameters(), *linear.parameters()]
    inputs, targets = (torch.tensor(t, dtype=torch.long) for t in (tokens[:, :-1], tokens[:, 1:]))
    batch, length = inputs.shape

    def train() -> None:
        logits = linear(lstm(words(inputs))[0])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 0.1 * gradient

    @torch.no_grad()
    def one() -> None:
        token = torch.ones(batch, 1, dtype=torch.long)
        state = None
        for _ in range(length):
            h, state = lstm(words(token), state)
            token = linear(h).argmax(-1)

    @torch.no_grad()
    def many() -> None:
        token = torch.ones(batch * BEAM, 1, dtype=torch.long)
        state: Any = tuple(torch.zeros(1, batch * BEAM, features) for _ in range(2))
        scores = torch.full((batch, BEAM), -torch.inf)
        scores[:, 0] = 0.0
        said = torch.zeros(batch, BEAM, 0, dtype=torch.long)
        rows = torch.arange(batch)[:, None]
        for _ in range(length):
            h, state = lstm(words(token), state)
            log_p = linear(h[:, 0]).log_softmax(-1).view(batch, BEAM, -1)
            scores, best = (scores[..., None] + log_p).view(batch, -1).topk(BEAM)
            parent, chosen = best // vocabulary, best % vocabulary
            state = tuple(
                s.view(1, batch, BEAM, -1)[:, rows, parent].reshape(1, batch * BEAM, -1)
                for s in state
            )
            said = torch.cat([said[rows, parent], chosen[..., None]], -1)
            token = chosen.reshape(-1, 1)

    return {"training": train, "greedy": one, f"beam {BEAM}": many}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=20, help="words of a caption")
    parser.add_argument("--vocabulary", type=int, default=3000)
    parser.add_argument("--embedding", type=int, default=256)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    shape = (options.batch, options.length + 1)
    tokens = np.random.default_rng(0).integers(3, options.vocabulary, shape)
    sizes = (options.vocabulary, options.embedding, options.features)
    jobs = {"JAX": ours(tokens, sizes), "PyTorch": torchs(tokens, sizes)}
    print(f"{options.batch} captions of {options.length} words, {options.vocabulary} words known")
    print(f"{'':10}{'JAX tokens/s':>16}{'PyTorch tokens/s':>18}{'ratio':>8}")
    for name in jobs["JAX"]:
        seconds: dict[str, float] = {}
        for number in range(options.rounds + 1):
            for library, table in jobs.items():
                if name in table:
                    began = time.perf_counter()
                    table[name]()
                    took = time.perf_counter() - began
                    if number:  # the first compiles
                        seconds[library] = min(took, seconds.get(library, took))
        rates = {k: options.batch * options.length / s for k, s in seconds.items()}
        other = rates.get("PyTorch")
        end = f"{other:18,.0f}{rates['JAX'] / other:8.2f}" if other else f"{'not installed':>18}"
        print(f"{name:10}{rates['JAX']:16,.0f}{end}")


if __name__ == "__main__":
    main()
