"""Metrics of captions: BLEU, ROUGE-L, CIDEr-D, exact match, diversity, attributes.

Sentences are compared as lists of words. Score freely decoded sentences only: a network that sees
the reference's words ("teacher forcing") gets far higher scores than its captions deserve.
"""

import collections
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import sacrebleu
from jaxtyping import Array, Float, Int

from research.data.text.tokens import END, TOKENISATION
from research.metrics.bias import Bias, Ratio, ratio_of_sums

Words = Sequence[str]
_ORDERS = 4  # longest n-gram of BLEU and CIDEr
_ROUGE_BETA = 1.2  # recall counts more than precision
_CIDER_SIGMA = 6.0

_BLEU = (
    "BLEU-{0}, 0 to 1: geometric mean of clipped n-gram precisions up to {0}, of the whole split, "
    "times the brevity penalty by the closest reference length; no smoothing (sacrebleu)"
)
PROTOCOL = {
    **{f"bleu{n}": _BLEU.format(n) for n in range(1, _ORDERS + 1)},
    "rouge_l": f"ROUGE-L, 0 to 1: F of the longest common subsequence, beta {_ROUGE_BETA}, best "
    "precision and best recall of the references (Lin 2004, as COCO's evaluation computes it)",
    "cider": "CIDEr-D, 0 to 10 (Vedantam et al. 2015): tf-idf weighted n-grams, document "
    "frequencies from the split's own references",
    "exact_match": "share of captions that equal one of their references",
    "identical_captions": "share of the most frequent caption; 1 is collapse",
    "attribute_accuracy": "share of mentioned (colour, digit) pairs that the picture holds; a "
    "caption that mentions none counts as one that is wrong",
    "true_captions": "share of captions that are of the scenes' language and hold of the picture",
}


def measure(
    tokens: Int[Array, "batch length"],
) -> dict[str, tuple[Float[Array, " batch"], Float[Array, " batch"]]]:
    """Returns the words of each caption, and whether it was cut before its end; with weights."""
    words = (tokens > END).sum(1).astype(jnp.float32)
    unfinished = (tokens != END).all(1).astype(jnp.float32)
    ones = jnp.ones_like(words)
    return {"words": (words, ones), "unfinished": (unfinished, ones)}


def protocol(decoding: str) -> dict[str, str]:
    """Returns how each metric is computed; `decoding` describes how sentences were made."""
    how = f"{decoding}, never teacher-forced; {TOKENISATION}"
    return {name: f"{text}; {how}" for name, text in PROTOCOL.items()}


def score(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> dict[str, float]:
    """Computes a split's metrics: bleu1 to bleu4, rouge_l, cider, exact_match, identical_captions.

    Undefined metrics are left out: bleu4 where no reference has four words, cider where all images
    share all n-grams, identical_captions of a single caption.

    Args:
      candidates: one sentence for each image.
      references: one or more sentences for each image.

    Raises:
      ValueError: where an image has no reference.
    """
    if len(candidates) != len(references) or not all(references):
        raise ValueError("every caption needs at least one reference")
    right = [
        list(said) in map(list, true) for said, true in zip(candidates, references, strict=True)
    ]
    scores = {
        **bleu(candidates, references),
        "rouge_l": float(
            np.mean([rouge_l(*pair) for pair in zip(candidates, references, strict=True)])
        ),
        "exact_match": float(np.mean(right)),
    }
    if not math.isnan(consensus := cider(candidates, references)):
        scores["cider"] = consensus
    if len(candidates) > 1:
        scores["identical_captions"] = identical(candidates)
    return scores


def bias(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> Bias:
    """Compares the length of captions with that of their references; see `length_ratio`."""
    return Bias("said / true length", {"words": length_ratio(candidates, references)})


def length_ratio(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> Ratio:
    """Returns the captions' words over the references', and its standard error over images.

    Below 1 captions are too short. Of an image's references the one closest in length counts, the
    shorter of two, as in BLEU: an image may be described briefly and at length, both rightly.
    """
    said = np.array([len(candidate) for candidate in candidates])
    lengths = [sorted(len(words) for words in several) for several in references]
    true = np.array([min(n, key=lambda x: abs(x - s)) for n, s in zip(lengths, said, strict=True)])
    return ratio_of_sums(said, true)


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> dict[str, float]:
    """Computes bleu1 to bleu4 on a scale from 0 to 1: Papineni et al. 2002, by sacrebleu.

    Up to the length of the longest reference: no candidate could have longer n-grams right.
    """
    most = max(map(len, references))
    longest = max(len(sentence) for true in references for sentence in true)
    streams: Any = [  # None: no further reference, which sacrebleu's own type does not say
        [" ".join(true[k]) if k < len(true) else None for true in references] for k in range(most)
    ]
    counter = sacrebleu.BLEU(tokenize="none", smooth_method="none")
    result = counter.corpus_score([" ".join(said) for said in candidates], streams)
    found, total = np.array(result.counts, float), np.array(result.totals, float)
    scores = {}
    for n in range(1, min(_ORDERS, longest) + 1):
        precision = found[:n] / np.maximum(total[:n], 1)
        mean = math.exp(np.log(precision).mean()) if precision.all() else 0.0
        scores[f"bleu{n}"] = result.bp * mean
    return scores


def rouge_l(candidate: Words, references: Sequence[Words]) -> float:
    """Returns F of the longest common subsequence: Lin 2004, section 3."""
    common = [longest_common_subsequence(candidate, true) for true in references]
    if not candidate or not max(common):
        return 0.0
    precision = max(common) / len(candidate)
    recall = max(n / len(true) for n, true in zip(common, references, strict=True) if true)
    return (1 + _ROUGE_BETA**2) * precision * recall / (recall + _ROUGE_BETA**2 * precision)


def longest_common_subsequence(a: Words, b: Words) -> int:
    """Counts the words that both have in the same order, not necessarily side by side."""
    row = [0] * (len(b) + 1)
    for word in a:
        before, row = row, [0]
        for j, other in enumerate(b):
            row.append(before[j] + 1 if word == other else max(row[j], before[j + 1]))
    return row[-1]


def cider(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Computes CIDEr-D, the mean over images: Vedantam et al. 2015, equations 3 to 5.

    An n-gram in every image's references tells nothing about one image: its weight is 0. NaN if
    all are such, as in a split of one image.
    """
    frequency: collections.Counter[Words] = collections.Counter()
    for true in references:
        frequency.update({gram for sentence in true for gram in _ngrams(sentence)})
    images = math.log(len(references))
    if all(count == len(references) for count in frequency.values()):
        return math.nan

    def weighted(sentence: Words) -> tuple[list[dict[Words, float]], list[float]]:
        vectors: list[dict[Words, float]] = [{} for _ in range(_ORDERS)]
        for gram, count in _ngrams(sentence).items():
            rarity = images - math.log(max(frequency[gram], 1))
            vectors[len(gram) - 1][gram] = count * rarity
        return vectors, [math.sqrt(sum(x * x for x in v.values())) for v in vectors]

    total = 0.0
    for said, true in zip(candidates, references, strict=True):
        vectors, norms = weighted(said)
        for sentence in true:
            others, other_norms = weighted(sentence)
            closeness = math.exp(-((len(said) - len(sentence)) ** 2) / (2 * _CIDER_SIGMA**2))
            for v, w, a, b in zip(vectors, others, norms, other_norms, strict=True):
                # The lesser of both weights: repeating a word does not help.
                product = sum(min(x, w[gram]) * w[gram] for gram, x in v.items() if gram in w)
                if product:
                    total += closeness * product / (a * b) / _ORDERS / len(true)
    return 10 * total / len(candidates)


def _ngrams(sentence: Words) -> "collections.Counter[Words]":
    return collections.Counter(
        tuple(sentence[i : i + n])
        for n in range(1, _ORDERS + 1)
        for i in range(len(sentence) - n + 1)
    )


def identical(candidates: Sequence[Words]) -> float:
    """Returns the share of the most frequent caption: near 1, captions ignore the pictures."""
    counts = collections.Counter(map(tuple, candidates))
    return max(counts.values()) / len(candidates)


def scene_scores(
    candidates: Sequence[str],
    scenes: Sequence[Any],
    mentioned: Callable[[str], list[tuple[str, int]]],
    is_true: Callable[[str, Any], bool],
) -> dict[str, float]:
    """Computes attribute_accuracy and true_captions, for scenes whose things are known.

    Args:
      candidates: a sentence for each scene.
      scenes: the things of each scene; a thing has a `colour` and a `digit`.
      mentioned: from a sentence to the colours and digits that it names.
      is_true: whether a sentence holds of the things of a scene.
    """
    truths = [{(thing.colour, thing.digit) for thing in scene} for scene in scenes]
    pairs = zip(candidates, scenes, strict=True)
    return {
        "attribute_accuracy": attribute_accuracy(candidates, truths, mentioned),
        "true_captions": float(np.mean([is_true(said, things) for said, things in pairs])),
    }


def attribute_accuracy(
    candidates: Sequence[str],
    truths: Sequence[Collection[tuple[str, int]]],
    mentioned: Callable[[str], list[tuple[str, int]]],
) -> float:
    """Returns the share of mentioned things that the picture holds, with colour and digit right.

    A caption that names nothing counts as one wrong mention, so silence does not pay.

    Args:
      truths: the (colour, digit) pairs of each picture.
      mentioned: the pairs that a sentence names.
    """
    right = total = 0
    for sentence, truth in zip(candidates, truths, strict=True):
        named = mentioned(sentence)
        right += sum(pair in truth for pair in named)
        total += max(len(named), 1)
    return right / total
