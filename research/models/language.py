"""A language model over characters: Elman 1990; Graves, "Generating sequences", 2013, section 3."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.nn.recurrent import Recurrent, State
from research.nn.regularisation import Dropout


class CharacterModel(nn.Module):
    """One-hot characters, recurrent layers, and a linear layer onto the character that follows.

    Attributes:
      vocabulary: characters there are.
      cell: a key of research.nn.recurrent.CELLS.
      features: of the hidden states.
      layers: recurrent layers.
      dropout: rate before the linear layer.
      axis: the pmap axis that the batch is split over.
    """

    vocabulary: int
    cell: str = "lstm"
    features: int = 256
    layers: int = 1
    dropout: float = 0.0
    axis: str | None = None

    def setup(self) -> None:
        self.recurrent = Recurrent(self.cell, self.vocabulary, self.features, self.layers)
        self.logits = nn.Dense(self.vocabulary)
        self.drop = Dropout(self.dropout, self.axis)

    def __call__(
        self, tokens: Int[Array, "batch time"], train: bool = False
    ) -> tuple[Float[Array, "batch time vocabulary"], Float[Array, "batch time features"]]:
        """Returns logits of each next character, and the hidden states they come from."""
        h, _ = self.recurrent(jax.nn.one_hot(tokens, self.vocabulary, dtype=self._type()))
        return self.logits(self.drop(h, train)), h

    def read(
        self,
        tokens: Int[Array, "batch time"],
        mask: Bool[Array, "batch time"],
        train: bool = False,
    ) -> tuple[State, ...]:
        """Returns the state after texts of several lengths; mask is False behind their ends."""
        x = jax.nn.one_hot(tokens, self.vocabulary, dtype=self._type())
        return self.recurrent(x, None, mask)[1]

    def step(
        self, states: tuple[State, ...], token: Int[Array, " batch"], train: bool = False
    ) -> tuple[tuple[State, ...], Float[Array, "batch vocabulary"]]:
        """Reads a character, and returns the next state and logits of the next character."""
        x = jax.nn.one_hot(token, self.vocabulary, dtype=self._type())
        states, h = self.recurrent.step(states, x)
        return states, self.logits(h)

    def _type(self) -> jnp.dtype:
        """Returns the type of the parameters, which mixed precision casts."""
        return self.recurrent.cells[0].kernel.dtype
