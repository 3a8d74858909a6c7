"""Twelve letters as a person's own pictures, and a small configuration of an embedding of them."""

import dataclasses

import cv2
import numpy as np

from experiments.embedding import Config

LETTERS = "ABEFHKLNRTXZ"


def save(folder):
    """Saves eight pictures of each letter: folder/own/A/0.png."""
    rng = np.random.default_rng(0)
    for letter in LETTERS:
        (folder / "own" / letter).mkdir(parents=True)
        for i in range(8):
            image = np.zeros((16, 16), np.uint8)
            at = (2 + int(rng.integers(0, 3)), 13 + int(rng.integers(-1, 2)))
            cv2.putText(image, letter, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 255, 1 + i % 2)
            cv2.imwrite(str(folder / "own" / letter / f"{i}.png"), image)


def config(place, **changes):
    """A configuration that trains on them in seconds."""
    values = {
        "dataset": f"folder:{place / 'own'}",
        "model": "convnet",
        "image_size": 16,
        "batch_size": 16,
        "steps": 12,
        "learning_rate": 0.01,
        "warmup": 0.0,
        "embedding_size": 8,
    }
    return dataclasses.replace(Config(), **(values | changes))
