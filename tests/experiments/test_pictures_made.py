"""Dreams and styles, made with a network of random weights: what is saved, and what it scores."""

import functools
import json
import shutil

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from launched import look
from safetensors.numpy import load_file, save_file

from experiments.input_optimization import Config, opened
from research import models
from research.errors import UserError
from research.models import convnet
from research.understanding import style_transfer


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("made")


@pytest.fixture(scope="module")
def colour(place):
    """Flags of a network for colour images of any size, from a file of random weights."""
    model = models.create("convnet", num_classes=4, widths=(4, 8, 8), normalise=False)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 3)))
    tensors = {}
    for path, value in flatten_dict(variables["params"], sep=".").items():
        array = np.asarray(value)
        if path.endswith("kernel"):
            array = np.moveaxis(array, (-1, -2), (0, 1))
        tensors[path.replace("kernel", "weight")] = np.ascontiguousarray(array)
    save_file(tensors, place / "random.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        entry = models.available()["convnet"]
        small = functools.partial(entry.make, widths=(4, 8, 8), normalise=False)
        patch.setitem(convnet.MODELS, "convnet", entry._replace(make=small, channels=3))
        yield [f"--init_from={place / 'random.safetensors'}", "--model=convnet"]


def test_a_file_of_weights_that_changed_is_read_again(place, colour):
    name, model = (flag.partition("=")[2] for flag in colour)
    file = place / "changes.safetensors"
    shutil.copy(name, file)
    config = Config(init_from=str(file), model=model)
    before = opened(config).network
    assert opened(config).network is before
    tensors = {key: 2 * value for key, value in load_file(file).items()}
    save_file(tensors, file)
    after = opened(config).network
    kernel = lambda network: np.asarray(jax.tree.leaves(network.variables["params"])[-1])
    np.testing.assert_allclose(kernel(after), 2 * kernel(before))


def paint(place, name, height, width):
    """A blurred random picture in a file."""
    rng = np.random.default_rng(height)
    image = rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
    cv2.imwrite(str(place / name), cv2.GaussianBlur(image, (0, 0), 2))
    return place / name


def test_dream_takes_any_size_and_saves_at_the_inputs_own(place, colour):
    picture, out = paint(place, "wide.png", 60, 97), place / "dream"
    flags = ["--method=dream", "--size=48", "--octaves=2", "--steps=6", "--original_size"]
    assert look(*colour, *flags, f"--inputs={picture}", f"--workdir={out}") == 0
    metrics = json.loads((out / "result.json").read_text())["metrics"]
    assert metrics["inputs/excitation_after"] > 1.2 * metrics["inputs/excitation_before"]
    folder = out / "figures" / "inputs"
    small, large = (cv2.imread(str(folder / f"{n}_wide.png")) for n in ("image", "original_size"))
    assert small.shape == (30, 48, 3) and large.shape == (60, 97, 3)
    # The input's own detail is still there: what was added is smooth.
    original = cv2.imread(str(picture)).astype(int)
    assert 0 < abs(large - original).mean() < 30


@pytest.mark.families
def test_dream_takes_a_strip(place, colour):
    picture, out = paint(place, "strip.png", 12, 300), place / "strip"
    flags = ["--method=dream", "--size=150", "--octaves=1", "--steps=2", f"--inputs={picture}"]
    assert look(*colour, *flags, f"--workdir={out}") == 0
    image = cv2.imread(str(out / "figures" / "inputs" / "image_strip.png"))
    assert image.shape == (6, 150, 3)


@pytest.mark.parametrize("solver", ["adam", pytest.param("lbfgs", marks=pytest.mark.families)])
def test_style_transfer_cuts_the_style_loss_tenfold(place, colour, figures, solver):
    content, style = paint(place, "content.png", 40, 30), paint(place, "style.png", 33, 64)
    out = place / f"style_{solver}"
    flags = ["--method=style", f"--style={style}", "--size=32", f"--solver={solver}"]
    flags += ["--steps=40" if solver == "adam" else "--steps=12"]
    assert look(*colour, *flags, f"--inputs={content}", f"--workdir={out}") == 0
    metrics = json.loads((out / "result.json").read_text())["metrics"]
    assert metrics["inputs/style_loss_after"] < 0.1 * metrics["inputs/style_loss_before"]
    image = cv2.imread(str(out / "figures" / "inputs" / "image_content.png"))
    assert image.shape == (32, 24, 3)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if "train/style_loss" in row][-1]  # curves of both parts
    total = last["train/style_loss"] + 1e-3 * last["train/content_loss"]
    assert last["train/loss"] == pytest.approx(total, rel=1e-3)
    # The strip goes from the start to the result, whose losses are those of the metrics.
    pictures = out / "figures" / "inputs"
    strip, first = figures[pictures / "progress.png"], figures[pictures / "style.png"].images[0]
    np.testing.assert_array_equal(strip.images[0], first)
    np.testing.assert_array_equal(strip.images[-1], image[..., ::-1])
    at = (0, 5, 10, 20, 40) if solver == "adam" else (0, 1, 3, 6, 12)
    assert len(strip.images) == 5 and strip.has(*(f"step {step}\n" for step in at))
    assert strip.has(
        f"step {at[-1]}\ncontent loss {metrics['inputs/content_loss_after']:.3g}\n"
        f"style loss {metrics['inputs/style_loss_after']:.3g}"
    )
    said = next(text for text in strip.texts if text.startswith("step 0\n"))
    rounded = float(said.rpartition(" ")[2])  # of 8 bits; the metric is of the start as it is
    assert rounded == pytest.approx(metrics["inputs/style_loss_before"], rel=0.02)


def test_layers_of_a_style_have_weights():
    assert style_transfer.layer_weights(["c1", "c3:0.25"]) == {"c1": 1.0, "c3": 0.25}
    for wrong in ("c1:0", "c1:-1", "c1:x", "c1:inf"):
        with pytest.raises(UserError, match="a weight is a positive number"):
            style_transfer.layer_weights([wrong])
