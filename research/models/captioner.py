"""Captioners: a convolutional encoder, and a recurrent decoder that says one word after another.

They work in parts, so that an image is encoded once however its caption is decoded: `maps` is the
encoder, `begin` gives the decoder's state before the first word, `step` goes on by one word, and
`tell` runs over whole captions and is shown their words ("teacher forcing").
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.data.text.tokens import BEGIN, PADDING, UNKNOWN
from research.errors import UserError, choose
from research.models import Entry, create
from research.nn.pooling import global_average_pool
from research.nn.recurrent import Recurrent
from research.nn.regularisation import Dropout

State = dict[str, Any]  # of arrays that lead with [B]
Maps = Float[Array, "batch rows columns feature"]


class Tell(nn.Module):
    """The image as the first word: Vinyals et al., "Show and tell", 2015, equations 10 to 12.

    Attributes:
      embedding: features of a word.
      features: of the hidden states.
      cell: a key of research.nn.recurrent.CELLS.
      layers: of cells.
    """

    embedding: int
    features: int
    cell: str
    layers: int

    def setup(self) -> None:
        self.image = nn.Dense(self.embedding)
        self.recurrent = Recurrent(self.cell, self.embedding, self.features, self.layers)

    def begin(self, maps: Maps) -> State:
        """Returns the state after the image."""
        image = self.image(global_average_pool(maps))
        states, _ = self.recurrent.step(self.recurrent.initial(len(maps)), image)
        return {"recurrent": states}

    def step(
        self, state: State, word: Float[Array, "batch embedding"]
    ) -> tuple[State, tuple[Float[Array, "batch features"], None]]:
        """Returns the next state, the features that predict the next word, and no attention."""
        states, h = self.recurrent.step(state["recurrent"], word)
        return {"recurrent": states}, (h, None)

    def run(
        self, state: State, words: Float[Array, "batch time embedding"]
    ) -> tuple[Float[Array, "batch time features"], None]:
        """Runs `step` over many words."""
        return self.recurrent(words, state["recurrent"])[0], None


class Attend(nn.Module):
    """Attention before each word: Xu et al., "Show, attend and tell", 2015, section 3.

    Soft attention (4.2) with the gate beta (4.2.1) and the deep output layer (equation 7), under a
    tanh as in the authors' code. The scores are scaled dot products instead of a two-layer network
    (equation 4): half the time of a step. Places get a learned embedding: without it a decoder
    knows what it sees, but not where.

    Attributes:
      embedding: features of a word, of a place, and of the layer that predicts the next word.
      features: of the hidden states.
      cell: a key of research.nn.recurrent.CELLS.
      layers: of cells.
    """

    embedding: int
    features: int
    cell: str
    layers: int

    def setup(self) -> None:
        width = self.embedding
        self.places = Places(width)
        self.first = nn.Dense(self.features)  # f_init: the mean place -> every state
        self.key, self.query = nn.Dense(width, use_bias=False), nn.Dense(width)
        self.gate = nn.Dense(1)
        self.recurrent = Recurrent(self.cell, 2 * width, self.features, self.layers)
        self.from_hidden, self.from_context = nn.Dense(self.embedding), nn.Dense(self.embedding)

    def begin(self, maps: Maps) -> State:
        """Returns the state before the first word: places, their keys, the first cell state."""
        places = self.places(maps)
        mean = nn.tanh(self.first(places.mean(1)))
        states = jax.tree.map(lambda _: mean, self.recurrent.initial(len(maps)))
        return {"places": places, "keys": self.key(places), "recurrent": states}

    def step(
        self, state: State, word: Float[Array, "batch embedding"]
    ) -> tuple[State, tuple[Float[Array, "batch embedding"], Float[Array, "batch place"]]]:
        """Returns the next state, features that predict the next word, and the attention."""
        h = state["recurrent"][-1][0]
        scores = jnp.einsum("bpf,bf->bp", state["keys"], self.query(h)) / self.embedding**0.5
        attention = nn.softmax(scores)
        context = jnp.einsum("bp,bpf->bf", attention, state["places"])
        context = nn.sigmoid(self.gate(h)) * context
        states, h = self.recurrent.step(state["recurrent"], jnp.concatenate([word, context], -1))
        said = nn.tanh(word + self.from_hidden(h) + self.from_context(context))
        return {**state, "recurrent": states}, (said, attention)

    def run(
        self, state: State, words: Float[Array, "batch time embedding"]
    ) -> tuple[Float[Array, "batch time embedding"], Float[Array, "batch time place"]]:
        """Runs `step` over many words."""
        fixed = {name: value for name, value in state.items() if name != "recurrent"}

        def body(self: Attend, states: Any, word: Array) -> tuple[Any, Any]:
            new, seen = self.step({**fixed, "recurrent": states}, word)
            return new["recurrent"], seen

        scan = nn.scan(
            body, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1
        )
        return scan(self, state["recurrent"], words)[1]


class AttendAfter(nn.Module):
    """Attention after each word that is read: Lu et al., "Knowing when to look", 2017.

    The spatial attention of section 2.2 depends on all words so far, the last included, and its
    result goes straight into the next word, not through the cells (figure 2b). So after "a red",
    attention can go to the red place for its digit; and the recurrent layers, which
    need no image, run over a whole caption before any attention is computed. Scores are scaled dot
    products and places get a learned embedding, as in `Attend`.

    Attributes:
      embedding: features of a word, of a place, and of the layer that predicts the next word.
      features: of the hidden states.
      cell: a key of research.nn.recurrent.CELLS.
      layers: of cells.
    """

    embedding: int
    features: int
    cell: str
    layers: int

    def setup(self) -> None:
        width = self.embedding
        self.places = Places(width)
        self.first = nn.Dense(self.features)  # the mean place -> every state
        self.key, self.query = nn.Dense(width, use_bias=False), nn.Dense(width)
        self.recurrent = Recurrent(self.cell, width, self.features, self.layers)
        self.from_hidden, self.from_context = nn.Dense(width), nn.Dense(width)

    def begin(self, maps: Maps) -> State:
        """Returns the state before the first word: places, their keys, the first cell state."""
        places = self.places(maps)
        mean = nn.tanh(self.first(places.mean(1)))
        states = jax.tree.map(lambda _: mean, self.recurrent.initial(len(maps)))
        return {"places": places, "keys": self.key(places), "recurrent": states}

    def step(
        self, state: State, word: Float[Array, "batch embedding"]
    ) -> tuple[State, tuple[Float[Array, "batch embedding"], Float[Array, "batch place"]]]:
        """Returns the next state, features that predict the next word, and the attention."""
        states, h = self.recurrent.step(state["recurrent"], word)
        said, attention = self._look(state, word[:, None], h[:, None])
        return {**state, "recurrent": states}, (said[:, 0], attention[:, 0])

    def run(
        self, state: State, words: Float[Array, "batch time embedding"]
    ) -> tuple[Float[Array, "batch time embedding"], Float[Array, "batch time place"]]:
        """Runs `step` over many words."""
        h, _ = self.recurrent(words, state["recurrent"])
        return self._look(state, words, h)

    def _look(self, state: State, words: Array, h: Array) -> tuple[Array, Array]:
        scores = jnp.einsum("bpf,btf->btp", state["keys"], self.query(h)) / self.embedding**0.5
        attention = nn.softmax(scores)
        context = jnp.einsum("btp,bpf->btf", attention, state["places"])
        return nn.tanh(words + self.from_hidden(h) + self.from_context(context)), attention


class Places(nn.Module):
    """The places of a map, each with a learned embedding of its position.

    So parameters depend on the map's size.
    """

    width: int

    @nn.compact
    def __call__(self, maps: Maps) -> Float[Array, "batch place {self.width}"]:
        places = maps.reshape(len(maps), -1, maps.shape[-1])  # [B, P, C]
        places = nn.Dense(self.width, name="place")(places)
        position = self.param("position", nn.initializers.normal(0.02), places.shape[1:])
        return nn.relu(places + position.astype(places.dtype))


class Captioner(nn.Module):
    """An encoder and a decoder.

    Attributes:
      vocabulary: how many tokens there are (49: the digit scenes need); higher numbers are
        read as UNKNOWN.
      decoder_type: Tell, Attend or AttendAfter.
      backbone_name: the encoder, a classifier of research.models.
      feature_map: which of its maps the decoder gets; "" for the last.
      embedding, features, cell, layers: of the decoder.
      dropout: rate on the words that go in and on the features that predict words.
      axis: the pmap axis that the batch is split over.
    """

    vocabulary: int = 49
    decoder_type: Callable[..., Any] = Attend
    backbone_name: str = "compact"
    feature_map: str = ""
    embedding: int = 128
    features: int = 256
    cell: str = "lstm"
    layers: int = 1
    dropout: float = 0.0
    axis: str | None = None

    def setup(self) -> None:
        self.backbone = create(self.backbone_name, axis=self.axis)
        self.decoder = self.decoder_type(self.embedding, self.features, self.cell, self.layers)
        self.words = nn.Embed(self.vocabulary, self.embedding)
        self.logits = nn.Dense(self.vocabulary)
        self.drop = Dropout(self.dropout, self.axis)

    def maps(self, images: Float[Array, "batch height width channel"], train: bool = False) -> Maps:
        """Returns the encoder's map of standardised images.

        Raises:
          UserError: where the encoder has no map of that name, or none at all.
        """
        maps = self.backbone(images, train=train, features=True)
        maps = {name: value for name, value in maps.items() if value.ndim == 4}
        if not maps:
            raise UserError("--backbone: has only vectors, no maps; choose a convolutional one.")
        return choose(self.feature_map or list(maps)[-1], maps, "feature_map")

    def begin(self, maps: Maps, train: bool = False) -> State:
        """Returns the decoder's state before the first word, from the encoder's map."""
        return self.decoder.begin(maps)

    def step(
        self, state: State, token: Int[Array, " batch"], train: bool = False
    ) -> tuple[State, Float[Array, "batch vocabulary"]]:
        """Reads a word (BEGIN first), and returns the next state and logits of the next word.

        Padding, BEGIN and UNKNOWN get -inf, so that they are never chosen.
        """
        state, (said, _) = self.decoder.step(state, self._embedded(token))
        logits = self.logits(said)
        return state, logits.at[:, jnp.array([PADDING, BEGIN, UNKNOWN])].set(-jnp.inf)

    def tell(
        self, state: State, tokens: Int[Array, "batch captions length"], train: bool = False
    ) -> tuple[
        Float[Array, "batch captions length vocabulary"],
        Float[Array, "batch captions length place"] | None,
    ]:
        """Returns logits of captions' words, each given the words before it, and the attention."""
        batch, captions, length = tokens.shape
        many = jax.tree.map(lambda x: jnp.repeat(x, captions, axis=0), state)
        flat = tokens.reshape(-1, length)  # [B K, L]
        shown = jnp.pad(flat[:, :-1], ((0, 0), (1, 0)), constant_values=BEGIN)
        said, attention = self.decoder.run(many, self.drop(self._embedded(shown), train))
        logits = self.logits(self.drop(said, train)).reshape(batch, captions, length, -1)
        if attention is not None:
            attention = attention.reshape(batch, captions, length, -1)
        return logits, attention

    def __call__(
        self,
        images: Float[Array, "batch height width channel"],
        tokens: Int[Array, "batch captions length"] | None = None,
        train: bool = False,
    ) -> tuple[
        Float[Array, "batch captions length vocabulary"],
        Float[Array, "batch captions length place"] | None,
    ]:
        """Runs `maps`, `begin` and `tell`; without tokens for one word, if only shapes matter."""
        if tokens is None:
            tokens = jnp.zeros((len(images), 1, 1), jnp.int32)
        return self.from_maps(self.maps(images, train), tokens, train)

    def from_maps(
        self, maps: Maps, tokens: Int[Array, "batch captions length"], train: bool = False
    ) -> tuple[
        Float[Array, "batch captions length vocabulary"],
        Float[Array, "batch captions length place"] | None,
    ]:
        """Runs `begin` and `tell` on maps that the encoder made before."""
        return self.tell(self.begin(maps), tokens, train)

    def _embedded(self, tokens: Int[Array, "*shape"]) -> Float[Array, "*shape embedding"]:
        return self.words(jnp.where(tokens < self.vocabulary, tokens, UNKNOWN))


MODELS = {
    "show_and_tell": Entry(partial(Captioner, decoder_type=Tell), 64, task="captioning"),
    "show_attend_and_tell": Entry(partial(Captioner, decoder_type=Attend), 64, task="captioning"),
    "spatial_attention": Entry(partial(Captioner, decoder_type=AttendAfter), 64, task="captioning"),
}
