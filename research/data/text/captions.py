"""Turns splits of sentences into splits of tokens."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32, Key

from research.data.images.preprocessing import Mapped
from research.data.sources.examples import Arrays, Example, Examples, read_many
from research.data.sources.splits import Labelled, Subset
from research.data.text.tokens import PADDING, UNKNOWN, Vocabulary, pad, words
from research.errors import UserError
from research.random import stream
from research.record.progress import console

Texts = Mapping[str, Sequence[Sequence[str]]]  # sentences of each image of each split


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenised:
    """Examples whose "captions" have become "tokens" int32 [K, L]; empty rows stand for none."""

    examples: Labelled
    tokens: Int32[np.ndarray, "n captions length"]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int, /) -> Example:
        return self._tokenised(index, self.examples[index])

    def __getitems__(self, indices: Sequence[int], /) -> list[Example]:
        read = read_many(self.examples, indices)
        return [self._tokenised(i, example) for i, example in zip(indices, read, strict=True)]

    def _tokenised(self, index: int, example: Example) -> Example:
        others = {name: value for name, value in example.items() if name != "captions"}
        return others | {"tokens": self.tokens[index]}

    @property
    def labels(self) -> np.ndarray:
        return self.examples.labels


def tokenise(
    splits: Mapping[str, Labelled],
    texts: Texts,
    vocabulary: Vocabulary,
    max_length: int,
    cut_long: bool,
    trains: bool = True,
) -> dict[str, Tokenised]:
    """Returns every split with tokens in the place of sentences.

    Args:
      vocabulary: has numbers for all words of the texts, also those that a model does not know.
      max_length: the most words of a training caption. References of other splits keep all their
        words, so that no metric is measured against half a sentence; so examples to hold out must
        be a split of their own already.
      cut_long: cut longer ones to it, and say how many, instead of refusing them.
      trains: whether a model learns from "train", and is not only evaluated on other splits.

    Raises:
      UserError: captions that are too long, and a split of which no word is known.
    """
    told = {}
    for split, examples in splits.items():
        rows = [[vocabulary.encode(text) for text in sentences] for sentences in texts[split]]
        lengths = np.array([len(tokens) - 1 for row in rows for tokens in row])
        long = int((lengths > max_length).sum())
        learned = split == "train" and trains
        if learned and long and not cut_long:
            raise UserError(
                f"--max_length={max_length}: {long:,} of {len(lengths):,} captions are longer, the "
                f"longest has {lengths.max()} words; raise it, or cut them with --cut_long."
            )
        if learned and long:
            console().print(
                f"{long:,} of {len(lengths):,} captions cut to --max_length={max_length} words",
                markup=False,
            )
        known = any(_knows(vocabulary, tokens) for row in rows for tokens in row)
        if not known and (learned or split != "train"):
            raise UserError(
                f"--dataset: no word of the captions of {split} is among the "
                f"{len(vocabulary.known)} that are known ({', '.join(vocabulary.known[:5])}, ...)."
            )
        most = max(map(len, rows))
        length = (max_length if split == "train" else int(lengths.max())) + 1
        length = min(length, int(lengths.max()) + 1)
        blank = np.full((len(rows), most, length), PADDING, np.int32)
        for tokens, row in zip(blank, rows, strict=True):
            tokens[: len(row)] = pad(row, length)
        told[split] = Tokenised(examples, blank)
    return told


def tokens_of(examples: Examples) -> Int32[np.ndarray, "n captions length"]:
    """Returns the tokens of every example, without decoding an image."""
    if isinstance(examples, Arrays):
        return examples.fields["tokens"]
    if isinstance(examples, Mapped):
        return tokens_of(examples.examples)
    if isinstance(examples, Subset):
        return tokens_of(examples.examples)[examples.positions]
    assert isinstance(examples, Tokenised), "no tokens"
    return examples.tokens


def references(tokens: Int32[np.ndarray, "captions length"], vocabulary: Vocabulary) -> list[Any]:
    """Returns an image's sentences, as words; empty rows are left out."""
    return [words(vocabulary.decode(row)) for row in tokens if row[0] != PADDING]


def _knows(vocabulary: Vocabulary, tokens: Sequence[int]) -> bool:
    """Returns whether at least one word is known."""
    return any(UNKNOWN < token < vocabulary.size for token in tokens)


def draw_references(
    keys: Key[Array, " batch"], tokens: Int[Array, "batch captions length"], count: int
) -> Int[Array, "batch _ length"]:
    """Draws up to `count` captions of each image without repetition, real ones first.

    Args:
      keys: of each example.
    """
    noise = jax.vmap(lambda key: jax.random.uniform(stream(key, "references"), tokens.shape[1:2]))
    order = jnp.argsort(noise(keys) + (tokens[:, :, 0] == PADDING), axis=1)
    chosen = order[:, : min(count, tokens.shape[1]), None]
    return jnp.take_along_axis(tokens, chosen, axis=1)
