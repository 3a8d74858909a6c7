"""--mode=preview: examples as training sees them, with their targets; refusals."""

import cv2
import jax
import numpy as np
import pytest
from matplotlib.patches import Rectangle

import launch
from experiments import classification
from research.figures import preview
from research.random import step_key
from research.training.step import parts_of


@pytest.fixture
def classes(tmp_path):
    """Two classes of ten pictures; a bright square lies at the left."""
    for number in range(20):
        folder = tmp_path / "classes" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image = np.full((24, 24, 3), number, np.uint8)
        image[8:16, 2:8] = 250
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return tmp_path


def run(place, experiment, *flags):
    given = ["--mode=preview", "--parallel=single", f"--workdir={place / 'out'}"]
    return launch.main(["x", f"--experiment={experiment}", *given, "--compilation_cache=", *flags])


def test_augmented_versions_stand_beside_each_example(classes, capsys, figures):
    flags = [f"--dataset=folder:{classes / 'classes'}", "--batch_size=4", "--mirror"]
    still = ["--rotation=0", "--scale=0", "--shift=0"]
    assert run(classes, "classification", *flags, *still) == 0
    assert "preview.png" in capsys.readouterr().out
    drawn = figures[classes / "out" / "preview.png"]
    assert drawn.has("as it is", "version 6") and drawn.has("a") and drawn.has("b")
    assert len(drawn.images) == 4 * 7
    for row in range(4):
        first, *versions = (np.asarray(x, float) for x in drawn.images[7 * row : 7 * row + 7])
        assert all(
            np.abs(x - first).max() < 2 or np.abs(x - first[:, ::-1]).max() < 2 for x in versions
        )
        assert any(np.abs(x - first).max() > 100 for x in versions)  # some are mirrored


def test_the_first_version_is_what_the_first_step_sees(classes, figures):
    flags = [
        f"--dataset=folder:{classes / 'classes'}",
        "--batch_size=4",
        "--seed=3",
        "--image_size=24",
    ]
    assert run(classes, "classification", *flags) == 0
    drawn = figures[classes / "out" / "preview.png"]
    dataset = f"folder:{classes / 'classes'}"
    experiment = classification.build(
        classification.Config(dataset=dataset, batch_size=4, seed=3, image_size=24)
    )
    batch, keys = parts_of(experiment.data().train.batch(0), step_key(3, 0), 1)
    augment = jax.jit(lambda key, batch: experiment.training.augment(key, batch, None)["image"])
    seen = np.asarray(augment(keys.augment, batch))
    for row in range(4):
        version = np.asarray(drawn.images[7 * row + 1], float)
        assert np.abs(version - np.clip(seen[row], 0, 255)).max() < 2


def test_targets_are_drawn_over_their_images():
    example = {
        "image": np.zeros((8, 8, 3), np.uint8),
        "boxes": np.array([[1.0, 2, 4, 6], [0, 0, 9, 9]]),
        "valid": np.array([True, False]),
        "classes": np.array([1, 0]),
        "segmentation": np.array([[0, 3], [255, 0]]),
        "points": np.array([[1.0, 1], [2, 2]]),
    }
    (ax,) = preview.sheet([[example]], ["a dog"]).axes
    boxes = [p.get_bbox().extents.tolist() for p in ax.patches if isinstance(p, Rectangle)]
    assert boxes == [[1, 2, 4, 6]]
    mask = ax.images[1].get_array()
    assert mask.mask.tolist() == [[True, False], [True, True]] and mask[0, 1] == 3
    assert ax.lines[0].get_xydata().tolist() == [[1, 1], [2, 2]]
    assert ax.get_title(loc="left") == "a dog"


@pytest.mark.parametrize("experiment", ["worked_examples", "language"])
def test_what_trains_on_no_images_is_refused(tmp_path, capsys, experiment):
    assert run(tmp_path, experiment) == 2
    error = capsys.readouterr().err
    assert "nothing to preview" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
