"""experiments/denoising.py, as docs/first_experiment.md builds it in a folder of a person's own."""

import json
import os
import re
from pathlib import Path

import jax
import numpy as np
import PIL.Image
import pytest
import toys

import launch
from experiments import denoising
from research.training.checkpoint import open_checkpoint

ROOT = Path(launch.__file__).resolve().parent
PAGE = (ROOT / "docs" / "first_experiment.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
SIDE = 16
SMALL = ("width=8", "depth=1", "stem=1")


def main(folder, *given):
    """launch.main in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        return launch.main(["x", "--compilation_cache=", "--parallel=single", *given])
    finally:
        os.chdir(before)


def photograph(rng, height, width, channels=3):
    """A smooth picture, so that there is something to tell from noise."""
    rows, columns = np.mgrid[:height, :width] / SIDE
    phases = rng.uniform(0, 6, (2, channels))
    waves = np.sin(3 * rows[..., None] + phases[0]) + np.cos(3 * columns[..., None] + phases[1])
    return (127.5 + 60 * waves).astype(np.uint8).squeeze()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the page's file, photographs, and the run of the page's command."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text("\n\n".join(BLOCKS))
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for k in range(10):
        PIL.Image.fromarray(photograph(rng, SIDE, SIDE)).save(folder / "photos" / f"{k}.png")
    code = main(
        folder,
        "--experiment=mine.py",
        "--dataset=folder:photos",
        f"--image_size={SIDE}",
        "--workdir=runs/first",
        f"--model_options={','.join(SMALL)}",
        "--noise=0.2",
        "--steps=50",
        "--batch_size=8",
        "--learning_rate=0.05",
    )
    assert code == 0
    return folder


def result(run):
    return json.loads((run / "result.json").read_text())


def test_the_pages_blocks_are_the_whole_file():
    def lines(text):
        return [line for line in text.splitlines() if line]

    file = (ROOT / "experiments" / "denoising.py").read_text()
    assert lines("\n".join(BLOCKS)) == lines(file), "change docs/first_experiment.md alike"


def test_a_few_steps_make_pictures_nearer_to_the_true_ones(place, figures):
    toys.check_outcomes(place / "runs/first")
    found = result(place / "runs/first")["metrics"]
    assert found["test/psnr"] > found["test/psnr_given"] + 1
    assert found["test/ssim"] > found["test/ssim_given"]
    assert found["test/psnr_given"] == pytest.approx(14, abs=1)  # 10 log10(1 / 0.2²), and clipped


def test_pictures_of_any_shape_are_scored_without_borders(place, tmp_path):
    """Half a border's noise lies below black, is cut off, and so would be freed of already."""
    (tmp_path / "photos").mkdir()
    for k in range(10):
        size = (2 * SIDE, SIDE) if k % 2 else (SIDE // 2, SIDE)
        PIL.Image.new("RGB", size, (100 + k,) * 3).save(tmp_path / "photos" / f"{k}.png")
    flags = ["--experiment=denoising", "--dataset=folder:photos", f"--image_size={SIDE}"]
    flags += [f"--model_options={','.join(SMALL)}", "--steps=1", "--batch_size=4"]
    assert main(tmp_path, *flags, "--workdir=RUN") == 0
    given = result(tmp_path / "RUN")["metrics"]["test/psnr_given"]
    assert given == pytest.approx(20, abs=0.3)  # 10 log10(1 / 0.1²)


def test_the_checkpoint_alone_evaluates_to_the_same(place):
    (place / "mine.py").rename(place / "away.py")
    try:
        assert main(place, "--mode=evaluate", "--checkpoint=runs/first", "--workdir=EVAL") == 0
    finally:
        (place / "away.py").rename(place / "mine.py")
    assert result(place / "EVAL")["metrics"] == result(place / "runs/first")["metrics"]


@pytest.mark.parametrize(("shape", "mode"), [((19, 13), "RGB"), ((12, 21), "L")])
def test_a_photograph_keeps_its_size(place, tmp_path, shape, mode):
    """Odd sides are no multiple of what the network halves; grey becomes the network's RGB."""
    rng = np.random.default_rng(1)
    clean = photograph(rng, *shape, channels=len(mode)).astype("f")
    noisy = np.clip(clean + rng.normal(scale=51, size=clean.shape), 0, 255).astype(np.uint8)
    PIL.Image.fromarray(noisy).save(tmp_path / "holiday.png")
    given = [f"--checkpoint={place / 'runs/first'}", "--inputs=holiday.png", "--workdir=OUT"]
    assert main(tmp_path, "--mode=predict", *given) == 0
    saved = np.asarray(PIL.Image.open(tmp_path / "OUT/denoised/holiday.png").convert(mode))
    assert saved.shape[:2] == shape
    assert np.square(saved - clean).mean() < 0.9 * np.square(noisy - clean).mean()
    row = json.loads((tmp_path / "OUT/predictions.jsonl").read_text())
    assert row["noise"] > 0


def built(place, **options):
    """The experiment of the run, from its facts alone, and its variables."""
    opened = open_checkpoint(place / "runs/first")
    config = denoising.Config(
        model_options=SMALL, dataset="folder:nowhere", batch_size=8, steps=2, **options
    )
    return denoising.build(config, opened.metadata["facts"]), opened.variables


def batch_of(*index):
    images = np.full((len(index), SIDE, SIDE, 3), 100, np.uint8)
    return {"image": images, "index": np.array(index, np.int32)}


def test_noise_is_the_same_in_every_evaluation_and_differs_between_pictures(place):
    experiment, variables = built(place)
    predict = jax.jit(experiment.evaluation.predict)
    first = predict(variables, batch_of(0, 1, 2, 3))["noisy"]
    again = predict(variables, batch_of(3, 4, 1, 5))["noisy"]  # in another order and company
    np.testing.assert_array_equal(again[0], first[3])
    np.testing.assert_array_equal(again[2], first[1])
    assert len({image.tobytes() for image in np.concatenate([first, again])}) == 6
    noise = np.asarray(first) - 100 / 255
    assert noise.std() == pytest.approx(0.1, rel=0.05) and abs(noise.mean()) < 0.01
    assert np.abs(noise[0] - noise[1]).mean() > 0.05
    other, variables = built(place, seed=1)
    assert (other.evaluation.predict(variables, batch_of(0))["noisy"] != first[0]).any()


def test_noise_of_training_changes_with_the_step_and_is_what_the_loss_asks_for(place):
    experiment, _ = built(place, noise=0.2)
    augment = jax.jit(lambda key, batch: experiment.training.augment(key, batch, None))
    batch = {**batch_of(0, 1, 1), "occurrence": np.array([0, 0, 1], np.int32)}
    first, second = (augment(jax.random.key(step), batch) for step in (1, 2))
    assert len({x.tobytes() for made in (first, second) for x in np.asarray(made["noise"])}) == 6
    np.testing.assert_allclose(first["image"] - batch["image"], 51 * first["noise"], atol=1e-3)
    assert np.asarray(first["noise"]).std() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("flag", ["mirror", "flip"])
def test_the_noise_does_not_tell_how_a_picture_was_augmented(place, flag):
    """With the keys of the augmentation, its first values would be those that it drew."""
    experiment, _ = built(place, **{flag: True})
    batch = batch_of(*range(64)) | {"occurrence": np.zeros(64, np.int32)}
    batch["image"][:, : SIDE // 2, : SIDE // 2] = 0
    augment = jax.jit(lambda key, batch: experiment.training.augment(key, batch, None))
    made = augment(jax.random.key(0), batch)
    clean = np.asarray(made["image"] - 25.5 * made["noise"])
    turned = clean[:, 0, 0].mean(-1) > 50
    assert 16 < turned.sum() < 48
    values = np.asarray(made["noise"]).reshape(64, -1)[:, :32]
    alike = np.abs([np.corrcoef(turned, value)[0, 1] for value in values.T])
    assert alike.max() < 0.5


def test_saved_pictures_are_rounded_to_the_nearest_value(place, tmp_path):
    """Rounded down, dark pictures would lose half a level of brightness."""
    experiment, _ = built(place)
    ramp = np.linspace(0, 1, 3 * SIDE * SIDE).reshape(1, SIDE, SIDE, 3)
    experiment.prediction.save(tmp_path, ["ramp.jpg"], {"denoised": ramp}, {})
    saved = np.asarray(PIL.Image.open(tmp_path / "denoised" / "ramp.png"), np.float64)
    assert np.abs(saved - 255 * ramp[0]).max() <= 0.5 and abs((saved - 255 * ramp[0]).mean()) < 0.01


def test_the_number_of_devices_does_not_change_the_losses(place):
    experiment, _ = built(place, optimizer="sgd")
    rng = np.random.default_rng(0)
    batches = [
        {
            "image": rng.integers(0, 256, (8, SIDE, SIDE, 3), np.uint8),
            "index": np.arange(8, dtype=np.int32),
            "occurrence": np.zeros(8, np.int32),
            "mask": np.arange(8) < real,
        }
        for real in (8, 5)
    ]
    one, many = (toys.train(experiment, mode, batches)[1] for mode in ("single", "pmap"))
    for alone, split in zip(one, many, strict=True):
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(split), strict=True):
            np.testing.assert_allclose(np.sum(b), np.sum(a), rtol=2e-4)


def test_training_starts_from_the_weights_of_a_run(place, capsys):
    flags = [f"--image_size={SIDE}", f"--model_options={','.join(SMALL)}", "--noise=0.2"]
    flags += ["--experiment=mine.py", "--dataset=folder:photos", "--steps=1", "--learning_rate=0"]
    assert main(place, *flags, "--init_from=runs/first", "--workdir=runs/second") == 0
    assert "weights of" in capsys.readouterr().out
    first, second = (open_checkpoint(str(place / "runs" / name)) for name in ("first", "second"))
    jax.tree.map(
        np.testing.assert_array_equal, first.variables["params"], second.variables["params"]
    )
