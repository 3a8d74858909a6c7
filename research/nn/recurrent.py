"""Recurrent cells, from their equations, and layers of them run over sequences.

A cell's product with its input, W x + b, needs no earlier step: it is one product for the whole
sequence, and only U h is left in the scan.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array, Bool, Float

from research.nn.initialisers import INITIALISERS, Initialiser

State = tuple[Array, ...]  # [B, hidden] each; the first is h, the cell's output
# (state, W x + b, h -> U h) -> the next state. Gates lie side by side: [B, gates x hidden].
Step = Callable[[State, Array, Callable[[Array], Array]], State]


def vanilla(state: State, x: Array, recurrent: Callable[[Array], Array]) -> State:
    """Computes h' = tanh(W x + U h + b): Elman, "Finding structure in time", 1990."""
    (h,) = state
    return (jnp.tanh(x + recurrent(h)),)


def lstm(state: State, x: Array, recurrent: Callable[[Array], Array]) -> State:
    """Computes an LSTM: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.

    i, f, o = sigmoid(W x + U h + b)    input, forget and output gate, each of its own W, U, b
    g       = tanh(W x + U h + b)       candidate
    c'      = f c + i g                 cell state: a sum, along which a gradient need not vanish
    h'      = o tanh(c')
    """
    h, c = state
    i, f, g, o = jnp.split(x + recurrent(h), 4, axis=-1)
    c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
    return nn.sigmoid(o) * jnp.tanh(c), c


def gru(state: State, x: Array, recurrent: Callable[[Array], Array]) -> State:
    """Computes a GRU: Cho et al. 2014; the reset gate acts on U h + d, as in cuDNN and Flax.

    r, z = sigmoid(W x + U h + b)              reset and update gate
    n    = tanh(W x + b + r (U h + d))         candidate
    h'   = (1 - z) n + z h
    """
    (h,) = state
    xr, xz, xn = jnp.split(x, 3, axis=-1)
    ur, uz, un = jnp.split(recurrent(h), 3, axis=-1)
    r, z = nn.sigmoid(xr + ur), nn.sigmoid(xz + uz)
    return ((1 - z) * jnp.tanh(xn + r * un) + z * h,)


class Kind(NamedTuple):
    """Facts about a cell before it is built."""

    step: Step
    gates: int
    states: int
    recurrent_bias: bool = False  # d


CELLS = {
    "rnn": Kind(vanilla, gates=1, states=1),
    "lstm": Kind(lstm, gates=4, states=2),
    "gru": Kind(gru, gates=3, states=1, recurrent_bias=True),
}


class Cell(nn.Module):
    """One recurrent layer: parameters `kernel` W, `recurrent` U, `bias` b (and d).

    Attributes:
      kind: a key of CELLS.
      inputs: features of the input.
      features: of the hidden state.
      forget_bias: initial bias of the LSTM's forget gate: 1 lets it remember (Gers et al. 2000).
      recurrent_init: of each gate's U.
    """

    kind: str
    inputs: int
    features: int
    forget_bias: float = 1.0
    kernel_init: Initialiser = INITIALISERS["xavier"]
    recurrent_init: Initialiser = INITIALISERS["orthogonal"]

    def setup(self) -> None:
        gates, width = CELLS[self.kind].gates, self.features

        def side_by_side(initialise: Initialiser) -> Initialiser:
            """Returns an initialiser that draws each gate's matrix separately."""

            def draw(key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
                keys = jax.random.split(key, gates)
                return jnp.concatenate([initialise(k, (shape[0], width), dtype) for k in keys], -1)

            return draw

        def first_bias(key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
            bias = jnp.zeros(shape, dtype)
            if self.kind == "lstm":
                bias = bias.at[width : 2 * width].set(self.forget_bias)
            return bias

        size = gates * width
        self.kernel = self.param("kernel", side_by_side(self.kernel_init), (self.inputs, size))
        self.recurrent = self.param("recurrent", side_by_side(self.recurrent_init), (width, size))
        self.bias = self.param("bias", first_bias, (size,))
        if CELLS[self.kind].recurrent_bias:
            self.recurrent_bias = self.param("recurrent_bias", nn.initializers.zeros, (size,))

    def initial(self, batch: int) -> State:
        """Returns the state before the first step: zeros, of the parameters' type."""
        zeros = jnp.zeros((batch, self.features), self.kernel.dtype)
        return (zeros,) * CELLS[self.kind].states

    def project(self, x: Float[Array, "... in"]) -> Float[Array, "... gates"]:
        """Computes W x + b, of one step or of a whole sequence."""
        x, kernel, bias = promote_dtype(x, self.kernel, self.bias)
        return x @ kernel + bias

    def advance(self, state: State, projected: Float[Array, "batch gates"]) -> State:
        """Returns the state after one more step, from W x + b."""
        recurrent = self.recurrent.astype(projected.dtype)
        if not CELLS[self.kind].recurrent_bias:
            return CELLS[self.kind].step(state, projected, lambda h: h @ recurrent)
        d = self.recurrent_bias.astype(projected.dtype)
        return CELLS[self.kind].step(state, projected, lambda h: h @ recurrent + d)

    def __call__(self, state: State, x: Float[Array, "batch in"]) -> State:
        """Runs one step."""
        return self.advance(state, self.project(x))


class Recurrent(nn.Module):
    """Layers of cells; each reads the hidden states of the one below.

    Attributes:
      kind: a key of CELLS.
      inputs: features of the input.
      features: of every layer's hidden state.
      layers: how many.
      forget_bias: of LSTM cells.
    """

    kind: str
    inputs: int
    features: int
    layers: int = 1
    forget_bias: float = 1.0

    def setup(self) -> None:
        self.cells = [
            Cell(self.kind, self.features if i else self.inputs, self.features, self.forget_bias)
            for i in range(self.layers)
        ]

    def initial(self, batch: int) -> tuple[State, ...]:
        """Returns the state of every layer before the first step: zeros."""
        return tuple(cell.initial(batch) for cell in self.cells)

    def step(
        self, states: tuple[State, ...], x: Float[Array, "batch in"]
    ) -> tuple[tuple[State, ...], Float[Array, "batch hidden"]]:
        """Runs one step through all layers, and returns the new states and the last layer's h."""
        new = []
        for cell, state in zip(self.cells, states, strict=True):
            state = cell(state, x)
            x = state[0]
            new.append(state)
        return tuple(new), x

    def __call__(
        self,
        x: Float[Array, "batch time in"],
        states: tuple[State, ...] | None = None,
        mask: Bool[Array, "batch time"] | None = None,
    ) -> tuple[Float[Array, "batch time hidden"], tuple[State, ...]]:
        """Runs over whole sequences.

        Args:
          states: of every layer before the first step; None: zeros.
          mask: False where a sequence has ended (or has not begun): the state passes unchanged.

        Returns:
          The last layer's h after every step, and the states after the last.
        """
        if states is None:
            states = self.initial(len(x))
        final = []
        for cell, state in zip(self.cells, states, strict=True):
            x, state = scan_cell(cell, state, x, mask)
            final.append(state)
        return x, tuple(final)


def scan_cell(
    cell: Cell,
    state: State,
    x: Float[Array, "batch time in"],
    mask: Bool[Array, "batch time"] | None = None,
) -> tuple[Float[Array, "batch time hidden"], State]:
    """Returns h after every step of one bound cell, and its last state."""
    projected = cell.project(x).swapaxes(0, 1)  # [T, B, gates * hidden]
    steps = jnp.ones(projected.shape[:2], bool) if mask is None else mask.T

    def body(state: State, now: tuple[Array, Array]) -> tuple[State, Array]:
        new = cell.advance(state, now[0])
        if mask is not None:
            new = jax.tree.map(lambda a, b: jnp.where(now[1][:, None], a, b), new, state)
        return new, new[0]

    state, outputs = jax.lax.scan(body, state, (projected, steps))
    return outputs.swapaxes(0, 1), state
