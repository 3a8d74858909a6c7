"""--mode=check: what it looks at, what it counts, and that this follows from sizes alone."""

import re
import shutil

import cv2
import jax
import numpy as np
import pytest

import launch
from research.commands import check
from research.commands.check import Budget, affordable
from research.data.sources import near_duplicates
from research.data.sources.examples import Arrays
from research.training import fitting
from research.training.parallel import Parallel

SIDE = 24


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Masks of 20 pictures, and classes of 20: `a/` of rings, `b/` of bars."""
    folder = tmp_path_factory.mktemp("check")
    rng = np.random.default_rng(0)
    for name in ("images", "masks", "classes/a", "classes/b"):
        (folder / name).mkdir(parents=True)
    for number in range(20):
        image = rng.integers(0, 60, (SIDE, SIDE, 3), np.uint8)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        middle = tuple(int(x) for x in rng.integers(8, 16, 2))
        for drawn, colour in ((image, (200, 90, 250)), (mask, 1)):
            cv2.circle(drawn, middle, 5 + number % 3, colour, -1)
        cv2.imwrite(str(folder / f"images/{number}.png"), image)
        cv2.imwrite(str(folder / f"masks/{number}.png"), mask)
        cv2.imwrite(str(folder / f"classes/{'ab'[number % 2]}/{number}.png"), image)
    return folder


def run(experiment, dataset, *given):
    options = ["--parallel=single", "--compilation_cache=", "--batch_size=8"]
    flags = [f"--experiment={experiment}", "--mode=check", f"--dataset={dataset}", *options]
    return launch.main(["x", *flags, *given])


def segmentation(place, *given):
    small = "--model_options=width=4,depth=2,stem=1"
    return run("segmentation", f"masks:{place / 'images'}:{place / 'masks'}", small, *given)


def numbers(pattern, text):
    (found,) = re.findall(pattern, text)
    return found


def test_rows_and_steps_follow_from_counts():
    budget = Budget(flops=1000.0, fewest=10, most=30)
    assert affordable(budget, 1.0, 3, 1, 2) == (3, 30)  # all of it is cheap
    assert affordable(budget, 1.0, 64, 1, 2) == (64, 15)
    assert affordable(budget, 10.0, 64, 1, 2) == (10, 10)  # the batch is cut
    assert affordable(budget, 10.0, 64, 4, 2) == (8, 12)  # to what devices share
    assert affordable(budget, 10.0, 64, 8, 16) == (16, 6)  # to what the loss needs
    assert affordable(budget, 900.0, 64, 1, 2) == (2, check.LEAST_STEPS)


def test_a_sample_is_looked_at_and_all_of_it_by_thorough(place, tmp_path, capsys):
    """The fault is in a picture that neither the sample nor the first batch holds."""
    shutil.copytree(place / "classes", tmp_path / "set")
    file = tmp_path / "set/a/10.png"
    file.write_bytes(file.read_bytes()[:-14])
    given = ["--model_options=widths=4+8,layers=1", "--image_size=24"]
    assert run("classification", f"folder:{tmp_path / 'set'}", "--sample=4", *given) == 0
    said = capsys.readouterr().out
    assert "train      16 examples, 4 of them looked at, evenly spaced\n" in said
    assert "test       4 examples\n" in said and "--thorough looks at all" in said
    first = float(numbers(r"loss +([\d.]+) before the first step; every answer alike", said))
    assert "every answer alike would be ln 2 = 0.6931\n" in said
    decay = "--weight_decay=1"
    assert run("classification", f"folder:{tmp_path / 'set'}", "--sample=4", decay, *given) == 0
    penalised = float(numbers(r"loss +([\d.]+) with the penalty", capsys.readouterr().out))
    assert penalised > first + 1 > 1  # half the squares of some hundred weights of He's deviation
    assert float(numbers(r"memory +([\d.]+) MiB of .* on each device for a step of 8", said)) > 0
    assert run("classification", f"folder:{tmp_path / 'set'}", "--thorough", *given) == 2
    assert "a/10.png: is truncated" in capsys.readouterr().err


def test_a_sampled_check_reads_no_more_than_the_sample(place, monkeypatch, capsys):
    from research.data.own import folders

    read = set()
    plain = folders.read

    def counting(file, *white):
        read.add(file)
        return plain(file, *white)

    monkeypatch.setattr(folders, "read", counting)
    given = ["--model_options=widths=4+8,layers=1", "--image_size=24"]
    assert run("classification", f"folder:{place / 'classes'}", "--sample=3", *given) == 0
    # Three of each split are looked at, and eight more make a batch.
    assert len(read) <= 3 + 3 + 8 < 20
    said = capsys.readouterr().out
    assert "train      16 examples, 3 of them" in said and "test       4 examples, 3 of" in said


class Refused:
    """A step that is not compiled, with what the compiler of TPUs then says."""

    def compile(self, compiler_options=None):
        said = "Ran out of memory in memory space hbm. Used 20.25G of 15.75G hbm."
        raise jax.errors.JaxRuntimeError(said)


@pytest.mark.parametrize("refused", [True, False])
def test_a_step_that_does_not_fit_is_said_and_not_run(place, monkeypatch, capsys, refused):
    """As the compiler of TPUs refuses it, and where the device at hand is too small."""
    if refused:
        monkeypatch.setattr(Parallel, "lower", lambda *args, **options: Refused())
    else:
        for module in (check, fitting):
            monkeypatch.setattr(module, "memory_at_hand", lambda: 1000)
    monkeypatch.setattr(check, "overfit", lambda *args: pytest.fail("the step was run"))
    given = ["--model_options=widths=4+8,layers=1", "--image_size=24"]
    assert run("classification", f"folder:{place / 'classes'}", *given) == 2
    told = capsys.readouterr()
    assert "for a step of 8 examples: does NOT fit\n" in told.out
    assert "memory     less with --" in told.out
    assert told.err == f"error: {check.TOO_LARGE}\n"


@pytest.mark.families
def test_a_large_step_is_tried_with_fewer_rows_which_say_what_all_need(place, monkeypatch, capsys):
    assert segmentation(place) == 0
    whole = capsys.readouterr().out
    assert "tried with" not in whole and "in 30 steps: it falls" in whole
    monkeypatch.setattr(check, "QUICK", Budget(2e8, 10, 30))
    outputs = []
    for _ in range(2):
        assert segmentation(place) == 0
        outputs.append(capsys.readouterr().out)
    line = r"tried with (\d) of the batch's 8 examples, (\d+) times"
    rows, steps = map(int, numbers(line, outputs[0]))
    assert 2 <= rows < 8 and f"in {steps} steps: it falls" in outputs[0]
    # It is what sizes say, whatever the machine is doing: all but the seconds repeats.
    timeless = [re.sub(r"compiled in .*|rate .*", "", text) for text in outputs]
    assert timeless[0] == timeless[1]
    mib = [float(numbers(r"memory +([\d.]+) MiB", text)) for text in (whole, outputs[0])]
    assert mib[1] == pytest.approx(mib[0], rel=0.1)


def test_rows_hold_several_images_of_several_classes(place, monkeypatch, capsys):
    monkeypatch.setattr(check, "QUICK", Budget(1.0, 10, 30))
    given = ["--model_options=widths=4+8,layers=1", "--image_size=24", "--images_per_class=2"]
    for number in range(16):
        file = place / "eight" / "abcdefgh"[number // 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.full((SIDE, SIDE, 3), 10 * number, np.uint8))
    run("embedding", f"folder:{place / 'eight'}", *given)
    assert "tried with 4 of the batch's" in capsys.readouterr().out


def test_near_duplicates_are_counted_and_named_and_one_batch_comes_near_zero(
    place, tmp_path, capsys
):
    folder = tmp_path / "set"
    rng = np.random.default_rng(1)
    for number in range(12):
        small = rng.integers(0, 256, (6, 6, 3), np.uint8)
        image = cv2.resize(small, (60, 60), interpolation=cv2.INTER_CUBIC)
        for split, lot in (("train", range(9)), ("test", range(7, 12))):
            if number in lot:
                file = folder / split / "ab"[number % 2] / f"{number}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                if split == "test":  # smaller, and saved with loss
                    image = cv2.resize(image, (50, 50), interpolation=cv2.INTER_AREA)
                cv2.imwrite(str(file), image, [cv2.IMWRITE_JPEG_QUALITY, 60])
    given = ["--model_options=widths=4+8,layers=1", "--image_size=24", "--learning_rate=0.01"]
    assert run("classification", f"folder:{folder}", "--thorough", *given) == 0
    said = capsys.readouterr().out
    assert "test       2 of 5 examples nearly as in train; --show_duplicates names them\n" in said
    assert "7.jpg is nearly" not in said
    assert re.search(r"to zero +loss [\d.]+ -> [\d.]+ in \d+ steps .*: near zero", said)
    named = ["--thorough", "--show_duplicates"]
    assert run("classification", f"folder:{folder}", *named, *given) == 0
    said = capsys.readouterr().out
    for name in ("b/7.jpg", "a/8.jpg"):
        assert f"{folder}/test/{name} is nearly {folder}/train/{name} of train\n" in said
    assert said.count("is nearly") == 2


def test_hashes_tell_what_is_nearly_the_same():
    """Against brighter, noisy, grey and smaller copies; mirrored ones and others are others."""
    rng = np.random.default_rng(2)
    images = np.stack(
        [
            cv2.resize(rng.integers(0, 200, (7, 9, 3), np.uint8), (90, 70), interpolation=2)
            for _ in range(30)
        ]
    )
    train = near_duplicates.hashes(Arrays({"image": images}))
    brighter = np.clip(images.astype(int) + 6, 0, 255).astype(np.uint8)
    noisy = np.clip(images + rng.normal(0, 8, images.shape), 0, 255).astype(np.uint8)
    grey = np.stack([cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None] for x in images])
    smaller = np.stack([cv2.resize(x, (45, 35), interpolation=cv2.INTER_AREA) for x in images])
    for changed in (images, brighter, noisy, grey, smaller):
        found = near_duplicates.pairs(train, near_duplicates.hashes(Arrays({"image": changed})))
        assert list(found) == [(k, k) for k in range(30)]
    others = images[:, :, ::-1].copy()
    assert not list(near_duplicates.pairs(train, near_duplicates.hashes(Arrays({"image": others}))))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--show_duplicates"], "--show_duplicates: is of --thorough"),
        (["--thorough", "--sample=3"], "--sample=3: --thorough looks at all"),
        (["--mode=train", "--thorough"], "--thorough: is for --mode=check; leave it out."),
    ],
)
def test_flags_that_contradict_each_other_are_refused(place, capsys, given, said):
    assert segmentation(place, *given) == 2
    assert said in capsys.readouterr().err
