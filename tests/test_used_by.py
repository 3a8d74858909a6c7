"""What `USED_BY` says of a flag is true: it changes the program of these choices alone."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from experiments import detection, embedding
from research.data.images.preprocessing import Preprocessing
from research.detection import config as detectors
from research.losses.config import LOSSES

PREPROCESSING = Preprocessing((32, 32), 3, mean=(128.0,), std=(64.0,)).to_json()


def program(experiment, batch):
    """The text of all that an experiment computes from a batch, and its constants."""
    variables = jax.eval_shape(lambda: experiment.network.init(jax.random.key(0)))

    def everything(variables, batch, key):
        changed = experiment.training.augment(key, batch, None)
        losses = experiment.training.loss(variables, changed, key, None)
        return losses, experiment.evaluation.predict(variables, batch)

    traced = jax.make_jaxpr(everything)(variables, batch, jax.random.key(0))
    text = re.sub(r"0x[0-9a-f]+", "", str(traced.jaxpr))  # functions are printed with addresses
    return text, [np.asarray(constant).tobytes() for constant in traced.consts]


EMBEDDING = {"mining": "batch_all", "distance": "squared", "margin": 0.375, "logit_scale": 7.5}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_flag_of_losses_changes_those_that_it_is_said_to(loss):
    assert EMBEDDING.keys() == embedding.USED_BY.keys()
    facts = {
        "train_classes": [0, 1],
        "ways": {"test": 2},
        "preprocessing": PREPROCESSING,
        "train_examples": 8,
        "monitored": "test",
    }
    batch = {
        "image": np.zeros((8, 32, 32, 3), np.uint8),
        "label": np.repeat(np.arange(2, dtype="i"), 4),
        "index": np.arange(8, dtype="i"),
        "occurrence": np.zeros(8, "i"),
        "mask": np.ones(8, bool),
    }
    config = dataclasses.replace(embedding.Config(), loss=loss, model="mlp", batch_size=8)
    plain = program(embedding.build(config, facts), batch)
    changed = {
        flag
        for flag, value in EMBEDDING.items()
        if program(embedding.build(dataclasses.replace(config, **{flag: value}), facts), batch)
        != plain
    }
    assert changed == {flag for flag, losses in embedding.USED_BY.items() if loss in losses}


# Values that differ from the defaults; of what is about data or files there is no program.
DETECTION = {
    "backbone": "resnet18",
    "strides": ("4",),
    "reach": 2.5,
    "box_loss": "ciou",
    "region_pooling": "pool",
    "draw_proposals": True,
    "windows": "naive",
    "box_weight": 3.0,
    "head_width": 24,
    "head_depth": 3,
    "mosaic": 0.5,
    "max_detections": 3,
    "score_threshold": 0.37,
    "nms_threshold": 0.37,
    "soft_nms": 0.37,
    "class_agnostic": True,
}
OF_DATA = {"init_from", "init_as", "anchors", "landmarks", "regions"}


@pytest.mark.families
@pytest.mark.parametrize("model", detectors.DETECTORS)
def test_a_flag_of_detectors_changes_those_that_it_is_said_to(model, monkeypatch):
    assert DETECTION.keys() | OF_DATA == detectors.USED_BY.keys()
    monkeypatch.setattr(detection, "refuse_unused", lambda *_: None)
    facts = {
        "class_names": ["red", "blue"],
        "sizes": [[8.0, 8.0], [16.0, 16.0]],
        "preprocessing": PREPROCESSING,
        "train_examples": 8,
        "monitored": "test",
    }
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 20, (4, 12, 2))
    boxes = np.concatenate([low, low + 8], 2).astype("f")
    batch = {
        "image": np.zeros((4, 32, 32, 3), np.uint8),
        "size": np.full((4, 2), 32, "i"),
        "boxes": boxes[:, :2],
        "points": np.zeros((4, 64, 2), "f"),
        "classes": np.zeros((4, 2), "i"),
        "crowd": np.zeros((4, 2), bool),
        "valid": np.ones((4, 2), bool),
        "proposals": boxes,
        "index": np.arange(4, dtype="i"),
        "occurrence": np.zeros(4, "i"),
        "mask": np.ones(4, bool),
    }
    config = detection.Config(model=model, batch_size=4)
    plain = program(detection.build(config, facts), batch)
    changed = {
        flag
        for flag, value in DETECTION.items()
        if program(detection.build(dataclasses.replace(config, **{flag: value}), facts), batch)
        != plain
    }
    said = {flag for flag, models in detectors.USED_BY.items() if model in models} - OF_DATA
    # Mosaic would change every detector: it is kept from those whose boxes are not to be mixed.
    assert changed - {"mosaic"} == said - {"mosaic"} and said <= changed
