"""Augmentation: what a key draws, boxes that move along, what mirrors cost."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.course.config import WorkedExamplesConfig
from research.course.worked import Worked, largest_difference, step
from research.data.config import ObjectAugmentation
from research.data.images.augment import colour_components, example_keys
from research.data.images.augment_objects import ObjectBatch, augment_objects
from research.figures import course as figures
from research.figures.preview import sheet

KINDS: dict[str, dict[str, Any]] = {
    "mirror": {"mirror": True},
    "crop": {"crop_padding": 6},
    "rotation": {"rotation": 25.0},
    "shear": {"shear": 20.0},
    "colour": {"hue": 0.2, "brightness": 0.2},
    "PCA colour": {"pca_colour": 4.0},
}


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Makes a picture of an L, 32x32 in 0..1, and the box around it."""
    image = np.zeros((32, 32, 3), np.float32)
    image[..., 2] = 0.25
    image[8:24, 10:14] = image[20:24, 10:20] = (0.9, 0.6, 0.1)
    return image, np.array([10.0, 8.0, 20.0, 24.0], np.float32)


def augmentation(config: WorkedExamplesConfig) -> Worked:
    """Augments a picture with its box, by keys of the picture and the epoch."""
    image, box = scene()
    axes = colour_components(image[None])
    moves = {}
    for name, options in KINDS.items():
        chosen = ObjectAugmentation(**options)
        one = ObjectBatch(
            jnp.asarray(image)[None],
            jnp.asarray(box)[None, None],
            jnp.zeros((1, 1), jnp.int32),
            jnp.zeros((1, 1), bool),
            jnp.ones((1, 1), bool),
        )
        run = jax.jit(
            lambda key, numbers, chosen=chosen, one=one: augment_objects(
                chosen, example_keys(key, *numbers), one, jnp.ones(1, bool), axes
            )
        )

        def of(epoch: int, run: Any = run) -> ObjectBatch:
            numbers = (jnp.array([0]), jnp.array([0]))
            found: ObjectBatch = run(jax.random.key(epoch), numbers)
            return found

        moves[name] = [of(epoch) for epoch in range(6)]
        again = of(3)
        moves[name].append(again)
    pixels = {name: [np.asarray(x.image[0]) for x in versions] for name, versions in moves.items()}
    mirrored = next(x for x in moves["mirror"] if largest_difference(x.image[0], image) > 0.1)
    # The bounding box of what is lit, in the picture that was mirrored.
    lit = np.nonzero(np.asarray(mirrored.image[0])[..., 0] > 0.5)
    seen = np.array([lit[1].min(), lit[0].min(), lit[1].max() + 1, lit[0].max() + 1], float)
    twice = np.asarray(mirrored.image[0])[:, ::-1]
    return Worked(
        [
            step("a picture of an L with its box", box),
            step("mirrored, its box moves along", np.asarray(mirrored.boxes[0, 0])),
            step("an epoch's picture is drawn by a key of (picture, epoch): the same each time"),
        ],
        {
            "mirrored_twice": (largest_difference(twice, image), "from the original; must be 0"),
            "box_difference": (
                largest_difference(mirrored.boxes[0, 0], seen),
                "between the moved box and what is lit, pixels; must be 0",
            ),
            "same_key_difference": (
                max(largest_difference(v[3], v[6]) for v in pixels.values()),
                "an epoch drawn twice; must be 0",
            ),
            "other_epochs": (
                float(
                    min(max(largest_difference(v[0], x) for x in v[1:6]) for v in pixels.values())
                ),
                "largest change between epochs, of every kind; must be above 0.01",
            ),
        },
        lambda: {"augmentation": sheet([_row(v) for v in moves.values()], list(moves))},
    )


def _row(versions: list[ObjectBatch]) -> list[dict[str, Any]]:
    """Returns the original and four versions, as `sheet` draws them."""
    image, box = scene()
    rows = [{"image": 255 * image, "boxes": box[None], "valid": np.array([True])}]
    return rows + [
        {
            "image": 255 * np.asarray(x.image[0]),
            "boxes": np.asarray(x.boxes[0]),
            "valid": np.asarray(x.valid[0]),
        }
        for x in versions[:4]
    ]


def ensembles(config: WorkedExamplesConfig) -> Worked:
    """Averages the probabilities of five made-up models: Jensen's inequality."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    signal = 2.0 * np.eye(3)[labels]
    # Logits of five models: what is true, and each one's own noise; the third has less of it.
    logits = signal + np.array([2, 2, 0.8, 2, 2])[:, None, None] * rng.normal(size=(5, 200, 3))
    members = np.asarray(jax.nn.log_softmax(jnp.asarray(logits, jnp.float32)))
    together = np.logaddexp.reduce(members) - np.log(5)  # as research.nn.ensemble does
    at = np.arange(200), labels
    losses = [float(-one[at].mean()) for one in members]
    joint = float(-together[at].mean())
    bars = {f"model {i + 1}": v for i, v in enumerate(losses)} | {"together": joint}
    return Worked(
        [
            step("cross-entropy", *(f"{name:9} {value:.4f}" for name, value in bars.items())),
            step("five models are five passes over each picture"),
        ],
        {
            "jensen_gap": (
                float(np.mean(losses)) - joint,
                "mean of members less ensemble; above 0",
            ),
            "best_member_gap": (
                min(losses) - joint,
                "best member less ensemble: may be below 0, as here",
            ),
            "passes": (float(len(members)), "over each picture; must be 5"),
        },
        lambda: {"ensembles": figures.bars({"cross-entropy": bars})},
    )
