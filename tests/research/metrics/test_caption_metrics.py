import json
import math
from pathlib import Path

import numpy as np
import pytest
import sacrebleu

from research.data.stored.scenes.captions import is_true, mentioned
from research.data.stored.scenes.drawing import Thing
from research.metrics import captions as metrics
from research.metrics.captions import (
    attribute_accuracy,
    bleu,
    cider,
    identical,
    longest_common_subsequence,
    rouge_l,
    scene_scores,
    score,
)

FIXTURE = Path(__file__).parents[2] / "fixtures" / "caption_scores.json"


def sentences(*texts):
    return [text.split() for text in texts]


def test_scores_are_those_of_cocos_own_scorers():
    """pycocoevalcap 1.2 on 40 made-up images; see tests/fixtures/generate_caption_scores.py."""
    fixture = json.loads(FIXTURE.read_text())
    scores = score(fixture["candidates"], fixture["references"])
    for name, expected in fixture["scores"].items():
        assert scores[name] == pytest.approx(expected, rel=1e-6), name


def test_bleu_is_sacrebleus_number_over_100_where_every_image_has_as_many_references():
    said = sentences("the cat sat on the mat today", "a dog ran over the green hill")
    true = [
        sentences("the cat sat on a mat today", "a cat was on the mat"),
        sentences("a dog ran over a green hill", "one dog ran up the green hill"),
    ]
    streams = [[" ".join(t[k]) for t in true] for k in range(2)]
    expected = sacrebleu.corpus_bleu([" ".join(s) for s in said], streams, tokenize="none")
    assert bleu(said, true)["bleu4"] == pytest.approx(expected.score / 100)


def test_bleu_by_hand():
    """One word of four wrong; too short by one word: exp(1 - 5 / 4)."""
    scores = bleu(sentences("a b x d"), [sentences("a b c d e")])
    short = math.exp(1 - 5 / 4)
    assert scores["bleu1"] == pytest.approx(3 / 4 * short)
    assert scores["bleu2"] == pytest.approx(math.sqrt(3 / 4 * 1 / 3) * short)
    assert scores["bleu3"] == scores["bleu4"] == 0


def test_a_perfect_copy_is_perfect_and_nothing_is_nothing():
    true = [sentences(f"the {a} dog sleeps", f"a {a} dog lies there") for a in "xyz"]
    perfect = score([t[1] for t in true], true)
    for name in ("bleu1", "bleu4", "rouge_l", "exact_match"):
        assert perfect[name] == pytest.approx(1)
    silent = score([[], [], []], true)
    assert all(silent[name] == 0 for name in perfect if name != "identical_captions")
    assert silent["identical_captions"] == 1


def test_repeating_a_word_does_not_help():
    true = [sentences("a red dog sleeps"), sentences("one blue cat runs")]
    honest = score(sentences("a red dog", "one blue cat"), true)
    stuffed = score(sentences("a red red red red dog dog", "one blue blue cat cat cat"), true)
    assert stuffed["bleu1"] < honest["bleu1"]
    assert stuffed["cider"] < honest["cider"]


def test_words_of_every_image_weigh_nothing_in_cider():
    true = [sentences("there is a dog"), sentences("there is a cat")]
    assert cider(sentences("there is a", "there is a"), true) == 0
    assert cider(sentences("dog", "cat"), true) > 0


def test_longest_common_subsequence():
    a, b = (
        ["the", "gunman", "was", "shot", "by", "police"],
        ["police", "ended", "the", "gunman", "was"],
    )
    assert longest_common_subsequence(a, b) == longest_common_subsequence(b, a) == 3
    assert longest_common_subsequence([], b) == 0
    assert rouge_l(a, [a, b]) == 1


def test_identical_captions_are_seen():
    assert identical(sentences("a dog", "a dog", "a cat", "a dog")) == 0.75
    assert identical(sentences("x", "y")) == 0.5


def test_a_picture_without_reference_is_refused():
    with pytest.raises(ValueError, match="at least one reference"):
        score(sentences("a", "b"), [sentences("a"), []])


def test_attributes_count_only_where_colour_and_digit_are_both_right():
    table = {"red three and blue five": [("red", 3), ("blue", 5)], "red five": [("red", 5)]}

    def accuracy(*said):
        return attribute_accuracy(
            said, [{("red", 3), ("blue", 5)}] * len(said), lambda s: table.get(s, [])
        )

    assert accuracy("red three and blue five") == 1
    assert accuracy("red five") == 0
    assert accuracy("red three and blue five", "red five") == pytest.approx(2 / 3)
    assert accuracy("red three and blue five", "nothing said") == pytest.approx(2 / 3)


def test_what_a_split_says_nothing_about_is_left_out():
    whole = {"bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider", "exact_match"}
    two = [sentences("a b c d"), sentences("e f g h")]
    assert score(sentences("a b c d", "a b c d"), two).keys() == whole | {"identical_captions"}
    # One image: nothing tells it from others, and no caption is like another.
    assert score(sentences("a b c d"), two[:1]).keys() == whole - {"cider"}
    # Three words have no four in a row; all images alike have nothing that tells them apart.
    alike = score(sentences("a b c", "a b c"), [sentences("a b c")] * 2)
    assert alike.keys() == (whole | {"identical_captions"}) - {"bleu4", "cider"}
    assert alike["bleu3"] == alike["exact_match"] == 1
    # Captions that are too short for references of four words are wrong, not left out.
    assert score(sentences("a b", "e f"), two)["bleu4"] == 0


def test_every_number_has_its_protocol_and_says_how_sentences_were_made():
    said = sentences("a b c d", "e f g h")
    names = {*score(said, [[s] for s in said]), "attribute_accuracy", "true_captions"}
    described = metrics.protocol("beam search of width 5")
    assert names == described.keys()
    assert all(
        "beam search of width 5, never teacher-forced" in text for text in described.values()
    )


def test_captions_of_scenes_are_held_against_what_is_there():
    scene = [Thing(0, 3, "red", (2, 2, 30, 30)), Thing(0, 5, "blue", (40, 40, 56, 58))]
    said = [
        "the largest digit is a red three and the smallest is a blue five",
        "the largest digit is a blue five and the smallest is a red three",  # both there, untrue
        "the largest digit is a red five",
        "there are three digits and the largest is a red three",
    ]
    scores = scene_scores(said, [scene] * 4, mentioned, is_true)
    assert scores["attribute_accuracy"] == pytest.approx(5 / 6)
    assert scores["true_captions"] == 1 / 4


def test_the_ratio_of_lengths_by_a_loop():
    rng = np.random.default_rng(0)
    said = [["a"] * int(n) for n in rng.integers(0, 9, 30)]
    true = [[["b"] * int(n) for n in rng.integers(3, 12, rng.integers(1, 4))] for _ in said]
    lengths = []
    for words, several in zip(said, true, strict=True):
        away = {len(reference): abs(len(reference) - len(words)) for reference in several}
        lengths.append(min(n for n, far in away.items() if far == min(away.values())))
    ratio = sum(map(len, said)) / sum(lengths)
    squares = sum((len(a) - ratio * b) ** 2 for a, b in zip(said, lengths, strict=True))
    found = metrics.length_ratio(said, true)
    assert found.value == pytest.approx(ratio)
    assert found.error == pytest.approx((squares * 30 / 29) ** 0.5 / sum(lengths))
    assert metrics.length_ratio(true[0], [[words] for words in true[0]]).value == 1
    # As far as it is from the ratio of other images of the same kind.
    draws = np.random.default_rng(1).integers(0, 30, (300, 30))
    again = [
        sum(len(said[i]) for i in rows) / sum(lengths[i] for i in rows) for rows in draws.tolist()
    ]
    assert found.error == pytest.approx(np.std(again), rel=0.15)
