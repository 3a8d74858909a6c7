"""Tokens: numbers for the words of sentences, or for the characters of a text."""

import collections
import dataclasses
import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np
import regex
from jaxtyping import Int

from research.errors import UserError

PADDING, BEGIN, END, UNKNOWN = range(4)
SPECIAL = ("<padding>", "<begin>", "<end>", "<unknown>")
TOKENISATION = "words in lower case, without punctuation"
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_APART = re.compile(r"[._,:;]")  # Unicode joins 3.5, a.m and x_y
_BOUNDARY = regex.compile(r"(?wV1)\b")
_UNSPACED = regex.compile(
    r"[\p{Script=Han}\p{Script=Hiragana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]"
)
_STEP = 4  # tokens from one bucket to the next


def words(sentence: str) -> list[str]:
    """Returns a sentence's words: runs of letters and digits, with inner apostrophes and hyphens.

    Word limits are Unicode's (Standard Annex 29): letters keep their marks, and scripts
    without spaces, such as Chinese and Thai, give a word for each character. Accents are composed
    (NFC). COCO's evaluation drops punctuation, too.
    """
    plain = sentence.lower().replace("’", "'")
    if plain.isascii():  # the same, and faster
        return _WORD.findall(plain.replace("_", " "))
    plain = _APART.sub(" ", unicodedata.normalize("NFC", plain))
    found: list[str] = []
    joined = False
    previous = ""
    for piece in _BOUNDARY.split(plain):
        if any(character.isalnum() for character in piece):
            if joined:
                found[-1] += previous + piece
            else:
                found.append(piece)
            joined = False
        else:
            joined = piece == "-" and any(character.isalnum() for character in previous)
        previous = piece
    return found


def is_unspaced(sentence: str) -> bool:
    """Returns whether a sentence has characters of a script without spaces between words."""
    return not sentence.isascii() and _UNSPACED.search(sentence) is not None


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Words and their numbers: the first follows the special tokens.

    Attributes:
      known: words that a model may say, most frequent first.
      others: words of references alone. They have numbers too, from `size` on, so that a
        reference can be read back from its tokens; a model sees UNKNOWN in their place.
    """

    known: tuple[str, ...]
    others: tuple[str, ...] = ()

    @classmethod
    def of(cls, sentences: Iterable[str], min_count: int = 1) -> "Vocabulary":
        """Makes a vocabulary of the words that occur at least min_count times; a before b in ties.

        Raises:
          UserError: where no word is left.
        """
        counts = collections.Counter(word for sentence in sentences for word in words(sentence))
        kept = [word for word, count in counts.items() if count >= min_count]
        if not kept:
            raise UserError(
                f"--min_count={min_count}: no word of the captions comes so often; all would be "
                "unknown. Lower it."
            )
        return cls(tuple(sorted(kept, key=lambda word: (-counts[word], word))))

    @property
    def size(self) -> int:
        """Returns the number of a model's tokens, the special ones included."""
        return len(SPECIAL) + len(self.known)

    def with_others(self, sentences: Iterable[str]) -> "Vocabulary":
        """Returns the vocabulary with numbers for all other words of the sentences too."""
        others = {word for sentence in sentences for word in words(sentence)} - {*self.known}
        return Vocabulary(self.known, tuple(sorted(others)))

    def encode(self, sentence: str) -> list[int]:
        """Returns the tokens of a sentence, END included."""
        numbers = self._numbers
        return [*(numbers.get(word, UNKNOWN) for word in words(sentence)), END]

    def decode(self, tokens: Iterable[SupportsIndex]) -> str:
        """Returns the words up to END, with spaces between."""
        names = (*SPECIAL, *self.known, *self.others)
        said = []
        for token in tokens:
            if int(token) in (END, PADDING):
                break
            said.append(names[token])
        return " ".join(said)

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        names = (*self.known, *self.others)
        return {word: number for number, word in enumerate(names, len(SPECIAL))}


def pad(sentences: Sequence[Sequence[int]], length: int) -> Int[np.ndarray, "sentences {length}"]:
    """Returns tokens of sentences, filled with PADDING; longer ones are cut, and keep END."""
    rows = np.full((len(sentences), length), PADDING, np.int32)
    for row, tokens in zip(rows, sentences, strict=True):
        kept = [*tokens[: length - 1], END] if len(tokens) > length else tokens
        row[: len(kept)] = kept
    return rows


@dataclasses.dataclass(frozen=True, eq=False)
class Buckets:
    """Buckets of lengths: "tokens" [B, K, L] are cut to that of the global batch's longest one.

    So a batch of short sentences spends no steps on padding, and a program is compiled for each
    bucket, not for each length. Buckets are multiples of 4, at most L.

    Attributes:
      lengths: tokens of the longest sentence of every example of the split.
    """

    lengths: Int[np.ndarray, " n"]

    @classmethod
    def of(cls, tokens: Int[np.ndarray, "n sentences length"]) -> "Buckets":
        return cls((tokens != PADDING).sum(-1).max(-1))

    def __call__(
        self, batch: Mapping[str, Any], positions: Int[np.ndarray, " row"]
    ) -> dict[str, Any]:
        """Cuts a batch whose examples are among those at `positions` of the split."""
        longest = int(self.lengths[positions].max())
        bucket = max(-(-longest // _STEP) * _STEP, _STEP)
        return {**batch, "tokens": batch["tokens"][..., :bucket]}


@dataclasses.dataclass(frozen=True)
class Characters:
    """The characters of a text and their numbers, without special tokens."""

    symbols: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Characters":
        """Returns every character that occurs in the text, sorted."""
        return cls(tuple(sorted(set(text))))

    @property
    def size(self) -> int:
        return len(self.symbols)

    def encode(self, text: str) -> Int[np.ndarray, " characters"]:
        """Returns a number for each character.

        Raises:
          UserError: for a character that the training text did not have.
        """
        numbers = {symbol: number for number, symbol in enumerate(self.symbols)}
        if unknown := sorted(set(text) - numbers.keys()):
            raise UserError(
                f"the character {unknown[0]!r} does not come in the text that was learned"
            )
        return np.array([numbers[symbol] for symbol in text], np.int32)

    def decode(self, tokens: Iterable[SupportsIndex]) -> str:
        return "".join(self.symbols[token] for token in tokens)
