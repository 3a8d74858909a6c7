"""The memory of recurrent networks that must recall their first symbol: how far gradients reach.

Hochreiter 1991; Bengio et al., "Learning long-term dependencies with gradient descent is
difficult", 1994; Tallec and Ollivier, "Can recurrent neural networks warp time?", 2018.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from rich.table import Table

from research.figures import memory as figures
from research.nn.initialisers import INITIALISERS
from research.nn.recurrent import CELLS, Cell, State
from research.random import stream
from research.record.report import Report

SYMBOLS = 8  # chance is one in eight
_BATCH = 64
_EVALUATED = 512


def state_gradients(
    advance: Callable[[State, Array], State],
    state: State,
    inputs: Float[Array, "time batch gates"],
    loss: Callable[[State], Float[Array, ""]],
) -> Float[Array, "time batch"]:
    """Computes |d loss / d state| of the state 0, 1, 2, ... steps before the last, by hand.

    The state is all that a cell hands on: h, and of an LSTM c as well. Each step back multiplies
    the gradient by the transposed Jacobian of one step.

    Args:
      advance: one step of a cell.
      state: before the first step.
      inputs: of each step.
      loss: of the state after the last step.
    """

    def forward(state: State, x: Array) -> tuple[State, State]:
        return advance(state, x), state

    last, before = jax.lax.scan(forward, state, inputs)

    def backward(gradient: State, step: tuple[State, Array]) -> tuple[State, Array]:
        earlier, x = step
        _, pull = jax.vjp(lambda s: advance(s, x), earlier)
        return pull(gradient)[0], _norm(gradient)

    _, norms = jax.lax.scan(backward, jax.grad(loss)(last), (before, inputs), reverse=True)
    return norms[::-1]


def _norm(gradient: State) -> Float[Array, " batch"]:
    return jnp.sqrt(sum((part**2).sum(-1) for part in gradient))


class Recall(nn.Module):
    """A network that reads symbols one by one, and says after the last which was the first.

    Attributes:
      recurrent: initialiser of U.
    """

    kind: str
    features: int
    forget_bias: float
    recurrent: str = "orthogonal"

    def setup(self) -> None:
        start = INITIALISERS[self.recurrent]
        self.cell = Cell(self.kind, SYMBOLS, self.features, self.forget_bias, recurrent_init=start)
        self.answer = nn.Dense(SYMBOLS)

    def projected(self, symbols: Int[Array, "batch time"]) -> Float[Array, "time batch gates"]:
        """Computes W x + b of every step."""
        return self.cell.project(jax.nn.one_hot(symbols, SYMBOLS)).swapaxes(0, 1)

    def advance(self, state: State, projected: Float[Array, "batch gates"]) -> State:
        return self.cell.advance(state, projected)

    def say(self, state: State) -> Float[Array, "batch symbol"]:
        """Computes logits of the first symbol."""
        return self.answer(state[0])

    def __call__(self, symbols: Int[Array, "batch time"]) -> Float[Array, "batch symbol"]:
        steps = self.projected(symbols)
        state, _ = jax.lax.scan(
            lambda state, x: (self.cell.advance(state, x), None),
            self.cell.initial(len(symbols)),
            steps,
        )
        return self.say(state)


class Memory(NamedTuple):
    """Findings about one cell.

    Attributes:
      fresh, trained: mean gradient norm by distance, from 0, before and after training.
      accuracy: after training, on sequences never seen.
    """

    name: str
    fresh: Float[np.ndarray, " time"]
    trained: Float[np.ndarray, " time"]
    accuracy: float


def remember(
    name: str,
    kind: str,
    forget_bias: float,
    length: int,
    features: int,
    steps: int,
    seed: int,
    recurrent: str = "orthogonal",
) -> Memory:
    """Trains one cell to recall the first of `length` symbols; how its gradients reach back."""
    model = Recall(kind, features, forget_bias, recurrent)
    key = jax.random.key(seed)
    draw = lambda key, count: jax.random.randint(key, (count, length), 0, SYMBOLS)
    held = draw(stream(key, "held out"), _EVALUATED)
    variables = jax.jit(model.init)(stream(key, "init"), held)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))

    def loss(variables: dict, symbols: Array) -> Array:
        logits = model.apply(variables, symbols)
        return optax.softmax_cross_entropy_with_integer_labels(logits, symbols[:, 0]).mean()

    @jax.jit
    def train(variables: dict) -> dict:
        def step(carry: tuple, number: Array) -> tuple[tuple, None]:
            variables, state = carry
            symbols = draw(jax.random.fold_in(stream(key, "train"), number), _BATCH)
            updates, state = optimizer.update(jax.grad(loss)(variables, symbols), state)
            return (optax.apply_updates(variables, updates), state), None

        carry = (variables, optimizer.init(variables))
        return jax.lax.scan(step, carry, jnp.arange(steps))[0][0]

    @jax.jit
    def norms(variables: dict) -> Array:
        def of_state(state: State) -> Array:
            logits = model.apply(variables, state, method="say")
            return optax.softmax_cross_entropy_with_integer_labels(logits, held[:, 0]).sum()

        advance: Any = lambda state, x: model.apply(variables, state, x, method="advance")
        zeros = (jnp.zeros((len(held), features)),) * CELLS[kind].states
        inputs: Any = model.apply(variables, held, method="projected")
        return state_gradients(advance, zeros, inputs, of_state).mean(1)

    trained = train(variables)
    right = jax.jit(model.apply)(trained, held).argmax(-1) == held[:, 0]
    return Memory(
        name, np.asarray(norms(variables)), np.asarray(norms(trained)), float(right.mean())
    )


def compare(
    length: int, features: int, steps: int, seed: int, recurrent: str = "orthogonal"
) -> Report:
    """Compares a vanilla network with LSTMs of forget gates half open (bias 1) and nearly open.

    A forget gate of bias b multiplies the cell state by sigmoid(b) each step: 1 forgets half within
    three steps, log(length) after about `length` of them (Tallec and Ollivier, section 3).

    Args:
      recurrent: initialiser of the recurrent weights: orthogonal ones keep the length of a state at
        first, so that a vanilla network remembers far better than from Xavier's.
    """
    wide = math.log(length)
    task = (length, features, steps, seed, recurrent)
    found = [
        remember("vanilla", "rnn", 0.0, *task),
        remember("LSTM, bias 1", "lstm", 1.0, *task),
        remember(f"LSTM, bias {wide:.1f}", "lstm", wide, *task),
    ]
    rows = [
        {
            "cell": memory.name,
            "weights": weights,
            "distance": distance,
            "gradient_norm": float(value),
            "accuracy": memory.accuracy,
        }
        for memory in found
        for weights, values in (("fresh", memory.fresh), ("trained", memory.trained))
        for distance, value in enumerate(values)
    ]
    shown = [d for d in (0, 1, 5, 20, 100) if d < length - 1] + [length - 1]
    table = Table(
        title=f"gradient norm of the state d steps before the end of {length} symbols", box=None
    )
    for column in ("cell, weights", "right", *(f"d = {d}" for d in shown)):
        table.add_column(column, justify="left" if "cell" in column else "right", no_wrap=True)
    for memory in found:
        for weights, values in (("fresh", memory.fresh), ("trained", memory.trained)):
            right = f"{100 * memory.accuracy:.0f} %" if weights == "trained" else ""
            table.add_row(f"{memory.name}, {weights}", right, *(f"{values[d]:.1e}" for d in shown))
    return Report(rows, table, {"gradient_by_distance": figures.gradient_by_distance(found)})
