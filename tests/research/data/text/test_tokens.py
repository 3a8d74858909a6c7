import dataclasses

import numpy as np
import pytest

from research.data.sources.examples import Arrays
from research.data.sources.source import Source
from research.data.text.tokens import (
    BEGIN,
    END,
    PADDING,
    SPECIAL,
    UNKNOWN,
    Buckets,
    Characters,
    Vocabulary,
    pad,
    words,
)
from research.errors import UserError

SENTENCES = ["A dog runs .", "a dog sleeps", "the cat sleeps!", "a bird"]


def test_words_are_lower_case_without_punctuation():
    assert words('A man\'s "half-open" door, (No. 3); it’s fine... ') == (
        ["a", "man's", "half-open", "door", "no", "3", "it's", "fine"]
    )
    assert words("Ein Kätzchen_schläft") == ["ein", "kätzchen", "schläft"]
    assert words(" .,;! ") == []


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("हिन्दी में कुत्ता।", ["हिन्दी", "में", "कुत्ता"]),
        ("สุนัข", ["สุ", "นั", "ข"]),
        ("一只狗，跑。", ["一", "只", "狗", "跑"]),
        ("犬がカタカナ", ["犬", "が", "カタカナ"]),
        ("كلبٌ يجري", ["كلبٌ", "يجري"]),
        ("개가 달린다", ["개가", "달린다"]),
        ("De\u0301ja\u0300-vu, l’e\u0301te\u0301", ["déjà-vu", "l'été"]),
        ("Ein — halb-offenes - Tor_3.5 é", ["ein", "halb-offenes", "tor", "3", "5", "é"]),
    ],
)
def test_words_of_any_script_keep_their_marks(sentence, expected):
    # Boundaries are those of Unicode's Standard Annex 29, accents composed (NFC).
    assert words(sentence) == expected
    assert words(" ".join(expected)) == expected  # as references are read back


def test_vocabulary_is_most_frequent_first_and_drops_rare_words():
    assert Vocabulary.of(SENTENCES).known == (("a", "dog", "sleeps", "bird", "cat", "runs", "the"))
    assert Vocabulary.of(SENTENCES, min_count=2).known == ("a", "dog", "sleeps")
    assert Vocabulary.of(reversed(SENTENCES)) == Vocabulary.of(SENTENCES)


def test_no_word_that_is_frequent_enough_is_one_clear_line():
    with pytest.raises(UserError, match=r"--min_count=9: no word"):
        Vocabulary.of(SENTENCES, min_count=9)


def test_encoding_and_decoding():
    vocabulary = Vocabulary.of(SENTENCES, min_count=2)
    tokens = vocabulary.encode("A dog barks.")
    assert tokens == [len(SPECIAL), len(SPECIAL) + 1, UNKNOWN, END]
    assert vocabulary.size == 7
    assert vocabulary.decode(tokens) == "a dog <unknown>"
    assert vocabulary.decode([4, END, 5, PADDING]) == "a"
    assert vocabulary.decode([4, 5, PADDING, 6]) == "a dog"  # cut before its end
    assert len({PADDING, BEGIN, END, UNKNOWN}) == 4


def test_references_can_be_read_back_though_a_model_does_not_know_all_words():
    vocabulary = Vocabulary.of(SENTENCES, min_count=2)
    extended = vocabulary.with_others([*SENTENCES, "zebras bark"])
    for sentence in ("zebras bark", "the cat sleeps"):
        tokens = extended.encode(sentence)
        assert extended.decode(tokens) == sentence
        assert max(tokens) >= vocabulary.size == extended.size
    assert extended.encode("a dog") == vocabulary.encode("a dog")


def test_padding_cuts_long_sentences_and_keeps_their_end():
    rows = pad([[5, 6, END], [5, END], [5, 6, 7, 8, END]], 4)
    np.testing.assert_array_equal(
        rows, [[5, 6, END, PADDING], [5, END, PADDING, PADDING], [5, 6, 7, END]]
    )


@pytest.mark.parametrize(("longest", "bucket"), [(1, 4), (4, 4), (5, 8), (9, 10), (10, 10)])
def test_batches_are_cut_to_their_bucket(longest, bucket):
    tokens = np.zeros((3, 2, 10), np.int32)
    tokens[1, 1, :longest] = END
    index = np.arange(3)
    cut = Buckets.of(tokens)({"tokens": tokens, "index": index}, index)
    assert cut["tokens"].shape == (3, 2, bucket) and cut["index"] is index
    np.testing.assert_array_equal(cut["tokens"], tokens[..., :bucket])


def test_every_part_of_a_global_batch_has_the_bucket_of_the_whole():
    """What processes feed together must agree in shape, whoever has the longest sentence."""
    lengths = np.array([1, 2, 12, 3, 2, 1, 7, 2])
    tokens = np.where(np.arange(16) < lengths[:, None], END, PADDING)[:, None].astype(np.int32)
    whole = Source(Arrays({"tokens": tokens}), 4, seed=0, collate=Buckets.of(tokens))
    buckets = set()
    for step in range(8):
        batch = whole.batch(step)["tokens"]
        parts = [dataclasses.replace(whole, part=(i, 4)).batch(step)["tokens"] for i in range(4)]
        np.testing.assert_array_equal(np.concatenate(parts), batch)
        buckets.add(batch.shape[-1])
    assert len(buckets) > 1


def test_characters():
    characters = Characters.of("hello")
    assert characters.symbols == ("e", "h", "l", "o") and characters.size == 4
    np.testing.assert_array_equal(characters.encode("hello"), [1, 0, 2, 2, 3])
    assert characters.decode(characters.encode("hole")) == "hole"
    with pytest.raises(UserError, match="'z' does not come"):
        characters.encode("hez")
