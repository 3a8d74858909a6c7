"""Captioned sets as TFDS stores them: what is read, tokenised and held against the scenes."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from research.data import datasets
from research.data.sources.splits import hold_out
from research.data.stored.builtin.digit_scenes import DigitScenes
from research.data.stored.scenes.captions import describe, is_true
from research.data.tasks import captioning
from research.data.text import captions as captions_lib
from research.data.text.tokens import END, PADDING, Vocabulary
from research.errors import UserError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """40 scenes of digits to train on, 10 to test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DigitScenes, "SCENES", {"train": 40, "test": 10})
        folder = tmp_path_factory.mktemp("data")
        return datasets.load("digit_scenes", folder, captioning.TASK)


def told(dataset, known=None, max_length=20, cut_long=False):
    texts = {name: captioning.captions(split) for name, split in dataset.splits.items()}
    everything = [text for split in texts.values() for image in split for text in image]
    vocabulary = (known or Vocabulary.of(everything)).with_others(everything)
    splits = captions_lib.tokenise(dataset.splits, texts, vocabulary, max_length, cut_long)
    return splits, texts, vocabulary


def test_sentences_and_things_of_a_scene_belong_together(dataset):
    for split in dataset.splits.values():
        texts = captioning.captions(split)
        for index in range(len(split)):
            example = split[index]
            things = captioning.as_things(example["things"])
            assert example["captions"].tolist() == texts[index] == describe(things)
            assert all(is_true(text, things) for text in texts[index])


def test_tokens_are_the_sentences_in_numbers(dataset):
    splits, texts, vocabulary = told(dataset)
    for name, split in splits.items():
        for index in range(len(split)):
            tokens = split[index]["tokens"]
            assert "captions" not in split[index]
            said = [" ".join(words) for words in captions_lib.references(tokens, vocabulary)]
            assert said == texts[name][index]
            ends = (tokens == END).sum(1)
            assert set(ends) <= {0, 1} and ((tokens[:, 0] == PADDING) == (ends == 0)).all()
        np.testing.assert_array_equal(captions_lib.tokens_of(split), split.tokens)


def test_tokens_of_held_out_examples_are_theirs(dataset):
    splits, _, _ = told(dataset)
    _, held = hold_out(splits["train"], 0.25)
    expected = np.stack([held[i]["tokens"] for i in range(len(held))])
    np.testing.assert_array_equal(captions_lib.tokens_of(held), expected)


def test_references_keep_words_that_training_captions_lose(dataset):
    with pytest.raises(UserError, match=r"--max_length=7: [\d,]+ of [\d,]+ captions are longer"):
        told(dataset, max_length=7)
    splits, texts, vocabulary = told(dataset, max_length=7, cut_long=True)
    assert splits["train"].tokens.shape[-1] == 8
    said = captions_lib.references(splits["test"].tokens[0], vocabulary)
    assert [" ".join(words) for words in said] == texts["test"][0]


def test_captions_in_another_language_are_refused(dataset):
    with pytest.raises(UserError, match="no word of the captions of train is among the 2"):
        told(dataset, known=Vocabulary(("zwei", "ziffern")))


def test_coco_captions_as_tfds_stores_them_are_found_and_others_are_not():
    image = tfds.features.Image(shape=(None, None, 3))
    captions = tfds.features.Sequence({"id": np.int64, "text": tfds.features.Text()})
    box = tfds.features.Sequence({"bbox": tfds.features.BBoxFeature(), "label": np.int64})

    class Info:
        def __init__(self, **features):
            self.features = tfds.features.FeaturesDict(features)

    found = captioning.find(Info(image=image, captions=captions, objects=box))
    assert found.image_shape == (None, None, 3) and not found.record.has_things
    assert captioning.find(Info(image=image, label=tfds.features.ClassLabel(num_classes=3))) is None
    assert captioning.find(Info(image=image, captions=tfds.features.Text())) is None
