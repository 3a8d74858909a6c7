"""The segmentation experiment on a person's own small pictures, in one process."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import PIL.Image
import pytest
import toys

import launch
from experiments import segmentation
from research.commands.predict import Predictions
from research.data.images.masks import IGNORE
from research.data.sources.examples import Arrays
from research.training import parallel as parallel_lib
from research.training.evaluation import make_evaluate

SIDE = 24
TINY = ("width=4", "depth=1")


def predictions_of(experiment, variables, size):
    """A person's own files, as --mode=predict takes them."""
    return Predictions(experiment.prediction.read, experiment.evaluation.predict, variables, size)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Ten pictures of a bright square on a dark ground, of two sizes, with palette masks."""
    root = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    (root / "masks").mkdir()
    for i in range(10):
        mask = np.zeros((SIDE, SIDE), "u1")
        top, left = rng.integers(0, SIDE - 10, 2)
        mask[top : top + 10, left : left + 10] = 1
        image = (40 + 150 * mask[..., None] + rng.integers(0, 20, (SIDE, SIDE, 3))).astype("u1")
        PIL.Image.fromarray(image).save(root / "images" / f"{i}.png")
        picture = PIL.Image.fromarray(mask)
        picture.putpalette([0, 0, 0, 255, 0, 0])
        picture.save(root / "masks" / f"{i}.png")
    (root / "masks" / "classes.txt").write_text("0 ground\n1 square\n")
    return root


def config(scenes, **options):
    options = {"model_options": TINY, "batch_size": 4, "steps": 4, "parallel": "single"} | options
    return segmentation.Config(
        **{"dataset": f"masks:{scenes / 'images'}:{scenes / 'masks'}", **options}
    )


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Discs on pictures of many sizes, two of them taken with the camera on its side."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(1)
    sizes = {
        "train": [(31, 47), (50, 41), (64, 64), (48, 70), (29, 80), (55, 60), (61, 44), (52, 52)]
    }
    sizes["test"] = [(33, 57), (150, 97), (20, 18)]
    for split, shapes in sizes.items():
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for i, (height, width) in enumerate(shapes):
            rows, columns = np.mgrid[:height, :width]
            mask = np.zeros((height, width), "u1")
            for _ in range(4):
                y, x, radius = rng.uniform((0, 0, 4), (height, width, 14))
                mask |= (rows - y) ** 2 + (columns - x) ** 2 < radius**2
            pixels = 40 + 150 * mask[..., None] + rng.integers(0, 60, (height, width, 3))
            picture = PIL.Image.fromarray(pixels.astype("u1"))
            if i % 3 == 0:
                exif = PIL.Image.Exif()
                exif[0x0112] = 6  # shown turned a quarter clockwise
                picture = picture.transpose(PIL.Image.Transpose.ROTATE_90)
                picture.save(root / "images" / split / f"{i}.jpg", exif=exif, quality=95)
            else:
                picture.save(root / "images" / split / f"{i}.png")
            PIL.Image.fromarray(mask).save(root / "masks" / split / f"{i}.png")
    (root / "classes.txt").write_text("0 ground\n1 disc\n")
    return root


def scores_of(truth, found):
    """Scores of mask files against mask files, by plain counting."""
    true, guess = (
        np.concatenate([np.asarray(PIL.Image.open(folder / f"{i}.png")).ravel() for i in range(3)])
        for folder in (truth, found)
    )
    iou = [((true == k) & (guess == k)).sum() / ((true == k) | (guess == k)).sum() for k in (0, 1)]
    return {
        "test/mIoU": np.mean(iou),
        "test/iou/ground": iou[0],
        "test/iou/disc": iou[1],
        "test/pixel_accuracy": (true == guess).mean(),
    }


def test_saved_masks_score_what_evaluation_says(photographs, tmp_path, capsys, figures):
    """Training's end, --mode=evaluate and files of --mode=predict: one pipeline, one number."""
    run, images, masks = tmp_path / "run", photographs / "images", photographs / "masks"
    own = ["--compilation_cache=", f"--data_dir={tmp_path / 'data'}"]
    flags = [
        "launch.py",
        "--experiment=segmentation",
        f"--dataset=masks:{images}:{masks}:{photographs / 'classes.txt'}",
        f"--model_options={','.join(TINY)}",
        "--image_size=24",
        "--batch_size=8",
        "--steps=20",
        "--eval_every=20",
        "--border_weight=5",
        "--class_weights=balanced",
        "--rand_score",
        "--crop_size=16",
        f"--workdir={run}",
    ]
    assert launch.main([*flags, *own]) == 0
    assert "images are shrunk to 39 %" in capsys.readouterr().out
    result = json.loads((run / "result.json").read_text())
    metrics = result["metrics"]
    toys.check_outcomes(run)  # mIoU among its metrics
    assert {"test/dice", "test/boundary_f1", "test/rand_score", "test/cross_entropy"} <= set(
        metrics
    )
    assert {name.partition("/")[2] for name in metrics if name.count("/") == 1} <= set(
        result["protocol"]
    )
    drawn = {name: figures[run / f"figures/test/{name}.png"] for name in ("predictions", "classes")}
    assert drawn["predictions"].has("image", "truth", "prediction", "% wrong")
    assert len(drawn["predictions"].images) % 4 == 0
    assert all(picture.std() > 1 for picture in drawn["predictions"].images[::4])
    assert drawn["classes"].has(f"mIoU {metrics['test/mIoU']:.3f}", "disc")
    assert drawn["classes"].has(f"{metrics['test/iou/disc']:.3f}")
    for options in ([], ["--tile=44"]):
        folder = tmp_path / f"scored{len(options)}"
        shared = ["launch.py", f"--checkpoint={run}", "--parallel=single", *own, *options]
        assert launch.main([*shared, "--mode=evaluate", f"--workdir={folder}"]) == 0
        found = json.loads((folder / "result.json").read_text())["metrics"]
        assert options or found == pytest.approx(metrics, rel=1e-5)
        predict = [*shared, "--mode=predict", f"--inputs={images / 'test'}"]
        assert launch.main([*predict, f"--workdir={folder / 'predicted'}"]) == 0
        saved = folder / "predicted/masks"
        expected = scores_of(masks / "test", saved)
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-12)
        assert 0.02 < found["test/iou/disc"] < 1  # something is found
        lines = (folder / "predicted/predictions.jsonl").read_text().splitlines()
        for i, row in enumerate(map(json.loads, lines)):
            picture = PIL.Image.open(saved / f"{i}.png")
            assert picture.mode == "P"
            share = (np.asarray(picture) == 1).mean()
            assert row["shares"].get("disc", 0.0) == pytest.approx(share)
        assert (folder / "predicted/predictions.png").exists()
    capsys.readouterr()


def test_two_files_of_one_name_get_a_mask_each_and_tiles_know_no_neighbours(scenes, tmp_path):
    experiment = segmentation.build(config(scenes, tile=44))
    variables = jax.jit(experiment.network.init)(jax.random.key(0))
    files = [str(tmp_path / name / "x.png") for name in "ab"]
    rng = np.random.default_rng(0)
    for file, size in zip(files, ((31, 47), (20, 18)), strict=True):
        Path(file).parent.mkdir()
        PIL.Image.fromarray(rng.integers(0, 255, (*size, 3)).astype("u1")).save(file)
    for folder, chosen in (("both", files), ("alone", files[1:])):
        (tmp_path / folder).mkdir()
        for part, outputs, batch in predictions_of(experiment, variables, 1)(chosen):
            experiment.prediction.save(tmp_path / folder, part, outputs, batch)
    first, second = (PIL.Image.open(tmp_path / "both/masks" / f) for f in ("x.png", "x-2.png"))
    assert (first.size, second.size) == ((47, 31), (18, 20))
    np.testing.assert_array_equal(second, PIL.Image.open(tmp_path / "alone/masks/x.png"))


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_masks_are_scored_at_the_images_own_size_however_they_are_resized(
    photographs, tmp_path, resize
):
    name = f"masks:{photographs / 'images'}:{photographs / 'masks'}"
    experiment = segmentation.build(
        config(photographs, dataset=name, image_size=24, resize=resize, eval_batch_size=2)
    )
    source = experiment.data().evals["test"]
    variables = jax.jit(experiment.network.init)(jax.random.key(3))
    found = make_evaluate(experiment.evaluation, parallel_lib.create("single", 2))(
        variables, source
    ).metrics
    files = [str(file) for file in sorted((photographs / "images/test").iterdir())]
    for part, outputs, batch in predictions_of(experiment, variables, 2)(files):
        experiment.prediction.save(tmp_path, part, outputs, batch)
    expected = scores_of(photographs / "masks/test", tmp_path / "masks")
    assert found["pixel_accuracy"] == pytest.approx(expected["test/pixel_accuracy"], rel=1e-12)
    assert found["mIoU"] == pytest.approx(expected["test/mIoU"], rel=1e-12)


def test_tiles_are_resized_as_the_training_images_were(photographs):
    name = f"masks:{photographs / 'images'}:{photographs / 'masks'}"
    options = {"dataset": name, "image_size": 24, "resize": "pad"}
    facts = segmentation.build(config(photographs, **options)).facts
    shapes = [
        x.shape
        for x in map(np.asarray, map(PIL.Image.open, (photographs / "masks/train").iterdir()))
    ]
    middle = np.median([24 / max(shape) for shape in shapes])
    assert facts["scale"] == pytest.approx([middle] * 2, rel=0.03)
    tiled = segmentation.build(config(photographs, **options, tile=44), facts)
    for source, alone in ((tiled.data().evals["test"], True), (tiled.data().train, False)):
        assert source.alone is alone
    batches = list(tiled.data().evals["test"].iterate())
    for batch, size in zip(batches, [(33, 57), (150, 97), (20, 18)], strict=True):
        expected = tuple(round(n * s) for n, s in zip(size, facts["scale"], strict=True))
        assert batch["segmentation"].shape[1:] == expected and batch["mask"].sum() == 1
    # Those of a checkpoint that does not know are predicted as they are.
    old = {name: value for name, value in facts.items() if name != "scale"}
    older = segmentation.build(config(photographs, **options, tile=44), old)
    assert older.data().evals["test"].batch(0)["image"].shape[1:3] == (33, 57)


def test_only_ignored_pixels_are_left_out(scenes):
    experiment = segmentation.build(config(scenes))
    source = experiment.data().evals["test"]
    variables = jax.jit(experiment.network.init)(jax.random.key(0))
    evaluate = make_evaluate(experiment.evaluation, parallel_lib.create("single", 4))
    plain = evaluate(variables, source)
    nothing = np.full((1, SIDE, SIDE), IGNORE, "u1")
    fields = {n: np.concatenate([x, x[:1]]) for n, x in source.memory.fields.items()}
    fields["segmentation"][-1:] = nothing
    more = dataclasses.replace(source, examples=Arrays(fields), originals=Arrays(fields))
    assert evaluate(variables, more).metrics == pytest.approx(plain.metrics)
    one = {n: x[-1:] for n, x in fields.items()}
    none = dataclasses.replace(source, examples=Arrays(one), originals=Arrays(one))
    result = evaluate(variables, none)
    assert result.metrics == {}
    assert (
        experiment.evaluation.evaluators["pixels"].draw_split(result.held["pixels"], result.targets)
        == {}
    )


def test_augmentation_moves_image_mask_and_border_weights_together(scenes):
    options = {"rotation": 40.0, "shift": 0.2, "elastic_alpha": 20.0, "mirror": True}
    experiment = segmentation.build(config(scenes, border_weight=5.0, **options))
    batch = experiment.data().train.batch(0)
    mask = batch["segmentation"]
    # Pictures of their own masks: wherever those go, the pictures must show it.
    batch["image"] = np.repeat(mask[..., None] * 200, 3, axis=-1)
    batch["border"] = mask.astype(np.float16)
    new = jax.jit(lambda b: experiment.training.augment(jax.random.key(0), b, None))(batch)
    known = np.asarray(new["segmentation"]) != IGNORE
    square = np.asarray(new["segmentation"]) == 1
    for seen in (np.asarray(new["image"])[..., 0] > 100, np.asarray(new["border"]) > 0.5):
        assert (seen == square)[known].mean() > 0.97
    assert not np.array_equal(new["segmentation"], mask)
    # What came from outside counts for nothing, and is there.
    assert (~known).any() and not np.asarray(new["border"])[~known].max() > 0.6


def test_crops_are_the_same_of_image_and_mask_and_reach_every_place(scenes):
    experiment = segmentation.build(config(scenes, crop_size=10))
    batch = experiment.data().train.batch(0)
    place = np.arange(SIDE**2).reshape(SIDE, SIDE)
    batch["image"] = np.stack([np.stack([place // SIDE, place % SIDE, 0 * place], -1)] * 4)
    batch["image"] = batch["image"].astype("u1")
    batch["segmentation"] = np.stack([place % 7] * 4).astype("u1")
    crop = jax.jit(lambda key, b: experiment.training.augment(key, b, None))
    corners = set()
    for seed in range(30):
        new = crop(jax.random.key(seed), batch)
        rows, columns = (np.rint(np.asarray(new["image"])[..., k]).astype(int) for k in (0, 1))
        assert rows.shape == (4, 10, 10)
        np.testing.assert_array_equal(new["segmentation"], (rows * SIDE + columns) % 7)
        corners |= {(int(r), int(c)) for r, c in zip(rows[:, 0, 0], columns[:, 0, 0], strict=True)}
    rows, columns = zip(*corners, strict=True)
    assert min(rows) == min(columns) == 0 and max(rows) == max(columns) == SIDE - 10


def test_ignored_pixels_change_neither_loss_nor_metrics(scenes):
    experiment = segmentation.build(config(scenes))
    data = experiment.data()
    batch = data.train.batch(0)
    # The network without statistics of the batch: what it sees stays as it is.
    variables = jax.jit(experiment.network.init)(jax.random.key(0))
    hidden = dict(batch)
    hidden["segmentation"] = batch["segmentation"].copy()
    hidden["segmentation"][:, :8] = IGNORE
    run = jax.jit(lambda b: experiment.training.loss(variables, b, jax.random.key(0), None)[0])
    plain = run(batch)
    assert not np.allclose(run(hidden), plain)
    outputs = jax.jit(experiment.evaluation.predict)(variables, batch)
    value, weight = jax.jit(experiment.evaluation.evaluators["pixels"].measure)(outputs, hidden)[
        "cross_entropy"
    ]
    assert weight.tolist() == [(SIDE - 8) * SIDE] * 4 and np.isfinite(value).all()


def test_metrics_do_not_depend_on_the_batch_size(scenes):
    results = []
    for size in (1, 2):
        experiment = segmentation.build(config(scenes, eval_batch_size=size))
        data = experiment.data()
        variables = jax.jit(experiment.network.init)(jax.random.key(0))
        evaluate = make_evaluate(experiment.evaluation, parallel_lib.create("single", size))
        results.append(evaluate(variables, data.evals["test"]).metrics)
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_a_learned_network_finds_the_squares(scenes):
    """One batch, learned by heart: the whole path from pixels to scores is right."""
    options = {"learning_rate": 0.02, "steps": 40, "warmup": 0.1, "batch_size": 8}
    experiment = segmentation.build(config(scenes, **options))
    from research.training.state import create
    from research.training.step import make_train_step

    batch = experiment.data().train.batch(0)
    state = create(experiment.training, jax.jit(experiment.network.init)(jax.random.key(0)), False)
    step = jax.jit(make_train_step(experiment.training, None))
    for _ in range(40):
        (state, _), _ = step(state, batch)
    outputs = jax.jit(experiment.evaluation.predict)(state.variables, batch)
    kept = jax.device_get(jax.jit(experiment.evaluation.evaluators["pixels"].keep)(outputs, batch))
    masks = Arrays({"segmentation": batch["segmentation"]})
    kept = experiment.evaluation.evaluators["pixels"].tally(kept, {"index": np.arange(8)}, masks)
    scores = experiment.evaluation.evaluators["pixels"].score(kept, {})
    assert scores["mIoU"] > 0.9, scores


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "cross_entropy+dise"}, "Did you mean 'dice'"),
        ({"model": "unet_leen"}, "Did you mean 'unet_lean'"),
        ({"model": "resnet18"}, "unknown model 'resnet18'"),
        ({"model_options": ("backbone=resnet18",)}, "--model_options=backbone=resnet18"),
        ({"mixup": 0.2}, "--mixup: this experiment mixes no"),
        ({"dataset": "masks:here"}, "write masks:IMAGES_DIR:MASKS_DIR"),
    ],
)
def test_bad_input_is_one_line(scenes, options, message, capsys):
    from research.errors import UserError

    with pytest.raises(UserError, match=message):
        segmentation.build(config(scenes, **options))


def test_a_checkpoint_of_other_classes_is_refused(scenes):
    from research.errors import UserError

    facts = dict(segmentation.build(config(scenes)).facts)
    facts["class_names"] = ["ground", "boat"]
    with pytest.raises(UserError, match=r"has 2 classes \(ground, square, ...\), the checkpoint"):
        segmentation.build(config(scenes), facts).data()


def test_presets_are_configurations():
    from research import config as config_lib

    names = {row.name for row in config_lib.options(segmentation.Config)} | {"experiment"}
    for file in Path(launch.EXPERIMENTS, "presets/segmentation").glob("*.flags"):
        lines = [line for line in file.read_text().splitlines() if line.startswith("--")]
        assert {line[2:].partition("=")[0] for line in lines} <= names
    assert dataclasses.is_dataclass(segmentation.Config)
