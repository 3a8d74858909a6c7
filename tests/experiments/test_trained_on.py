"""What a run trained on is never evaluated on as new, whatever becomes of a person's own files."""

import json

import cv2
import numpy as np
import pytest

from experiments import captioning, classification, detection, embedding, segmentation
from research.data.sources import overlap

SIDE = 16
PARTS = ("train", "test")


def pictures(count, seed):
    return list(np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8))


def save(file, image):
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), image[:, :, ::-1])


# Each writes {name: picture}, or {"train/name": picture, ...}, and returns the set's name.
# A picture's class is the first letter of its name.


def in_classes(folder, named):
    for name, image in named.items():
        part, _, stem = name.rpartition("/")
        save(folder / part / stem[0] / f"{stem}.png", image)
    return f"folder:{folder}"


def with_masks(folder, named):
    for name, image in named.items():
        save(folder / "images" / f"{name}.png", image)
        mask = np.full((SIDE, SIDE), 255, np.uint8)
        mask[: SIDE // 2] = 0
        (folder / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "masks" / f"{name}.png"), mask)
    return f"masks:{folder / 'images'}:{folder / 'masks'}"


def with_boxes(folder, named):
    files = []
    for part in PARTS if any("/" in name for name in named) else [""]:
        names = [name for name in named if name.startswith(part)]
        for name in names:
            save(folder / "images" / f"{name}.png", named[name])
        rows = [
            {"id": i, "file_name": f"{name}.png", "width": SIDE, "height": SIDE}
            for i, name in enumerate(names)
        ]
        boxes = [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [2, 2, 8, 8]}
            for i in range(len(names))
        ]
        categories = [{"id": 1, "name": "thing"}]
        content = {"images": rows, "annotations": boxes, "categories": categories}
        files.append(folder / f"{part or 'all'}.json")
        files[-1].write_text(json.dumps(content))
    return ":".join(map(str, ["coco", folder / "images", *files]))


def with_captions(folder, named):
    rows = []
    for name, image in named.items():
        save(folder / "images" / f"{name}.png", image)
        split = {"split": name.partition("/")[0]} if "/" in name else {}
        rows.append({"image": f"{name}.png", "captions": ["a thing"], **split})
    (folder / "captions.json").write_text(json.dumps(rows))
    return f"captions:{folder / 'images'}:{folder / 'captions.json'}"


COMMON = {"image_size": SIDE, "batch_size": 8}
TASKS = {
    "classification": (classification, in_classes, {"model": "linear"}),
    "embedding": (embedding, in_classes, {"images_per_class": 4}),
    "segmentation": (segmentation, with_masks, {}),
    "detection": (detection, with_boxes, {"backbone": "convnet"}),
    "captioning": (captioning, with_captions, {"backbone": "convnet"}),
}


def opened(task, dataset, facts=None, **changes):
    module, _, own = TASKS[task]
    config = module.Config(dataset=dataset, **{**COMMON, **own, **changes})
    experiment = module.build(config, facts)
    return experiment.facts, experiment.data()


def pixels(examples):
    """What is there, independent of any digest: pictures keep their size here."""
    return [examples[i]["image"].tobytes() for i in range(len(examples))]


def trained(task, dataset, **changes):
    """The facts of a run, the list that it keeps, and the pixels that it trained on."""
    facts, data = opened(task, dataset, **changes)
    data, known, _ = overlap.at_training(data)
    truth = set(pixels(data.train.examples))
    assert len(known) == len(truth)
    for source in data.evals.values():
        assert not truth & set(pixels(source.examples))
    return facts, known, truth


def named(groups, first="a"):
    """A name for every picture, which begins with the letter of its group."""
    rows = [(chr(ord(first) + k), image) for k, group in enumerate(groups) for image in group]
    return {f"{letter}{number:03}": image for number, (letter, image) in enumerate(rows)}


def regrouped(groups, added, by_class):
    """The same pictures and others, in another order: of classes, or of all of them."""
    draws = np.random.default_rng(1)
    if by_class:
        groups = [groups[k] for k in draws.permutation(len(groups))]
        return [[*groups[0], added[0]], *groups[1:], added[1:5], added[5:]]
    flat = [image for group in groups for image in group] + added
    return np.array_split(np.array(flat)[draws.permutation(len(flat))], len(groups))


@pytest.mark.parametrize("task", TASKS)
def test_a_split_of_our_own_never_holds_what_was_trained_on(task, tmp_path):
    """All files were renamed, into another order, moved to another folder, and some were added."""
    write, images = TASKS[task][1], pictures(60, seed=0)
    groups = [images[i : i + 6] for i in range(0, 60, 6)]
    before = write(tmp_path / "before", named(groups))
    facts, known, truth = trained(task, before, validation=0.2)

    groups = regrouped(groups, pictures(10, seed=1), task == "embedding")
    _, data = opened(task, write(tmp_path / "after", named(groups)), facts, validation=0.2)
    new, report = overlap.new_only(data, known)
    assert data.evals.keys() == {"test", "validation"}
    overlaps = 0
    for split, source in data.evals.items():
        there, row = pixels(source.examples), report["splits"][split]
        count = sum(picture in truth for picture in there)
        overlaps += count
        assert row["examples"] == len(there) and row["trained_on"] == count
        left = pixels(new.evals[split].examples) if split in new.evals else []
        assert not truth & set(left)
        if task == "embedding":  # all of a class, those that were added to it too
            classes = {label: [] for label in sorted(set(labels(source).tolist()))}
            for label, picture in zip(labels(source).tolist(), there, strict=True):
                classes[label].append(picture)
            unseen = [rows for rows in classes.values() if not truth & set(rows)]
            there = [picture for rows in unseen for picture in rows]
            assert row["classes_left_out"] == len(classes) - len(unseen)
        assert left == [picture for picture in there if picture not in truth]
        assert row["examples"] - row["left_out"] == len(left)
    assert overlaps and report["unknown"] == ""


@pytest.mark.parametrize("task", TASKS)
def test_held_out_pictures_follow_from_the_split_seed_and_the_fold_alone(task, tmp_path):
    """And from a checkpoint's own configuration, whatever the seed of the run."""
    images = pictures(60, seed=0)
    dataset = TASKS[task][1](tmp_path, named([images[i : i + 6] for i in range(0, 60, 6)]))

    def parts(facts=None, **changes):
        found, data = opened(task, dataset, facts, **changes)
        sources = {"train": data.train, **data.evals}
        return found, {name: {*pixels(source.examples)} for name, source in sources.items()}

    facts, drawn = parts(split_seed=1, validation=0.2)
    assert drawn == parts(facts, split_seed=1, validation=0.2, seed=5)[1]
    plain = parts(validation=0.2, seed=5)[1]
    assert plain == parts(validation=0.2)[1] and plain.keys() == drawn.keys()
    for split, held in drawn.items():
        assert held != plain[split] and len(held) == len(plain[split])
    assert set().union(*drawn.values()) == {*(image.tobytes() for image in images)}
    assert sum(map(len, drawn.values())) == 60

    folds = [parts(fold=f"{i}/3", split_seed=1)[1] for i in (1, 2, 3)]
    assert all(fold["test"] == drawn["test"] for fold in folds)
    rest = drawn["train"] | drawn["validation"]
    assert sum(len(fold["validation"]) for fold in folds) == len(rest)
    for fold in folds:
        assert fold["train"] | fold["validation"] == rest
        assert not fold["train"] & fold["validation"]


def labels(source):
    return source.memory.fields["label"]


@pytest.mark.parametrize("task", TASKS)
def test_a_picture_that_came_from_train_is_left_out_of_a_given_test(task, tmp_path):
    """One is moved and one copied, under other names; then a new run meets them."""
    write, images = TASKS[task][1], pictures(44, seed=0)
    train, test = ([images[i : i + 5] for i in range(at, at + 20, 5)] for at in (0, 20))
    first = "e" if task == "embedding" else "a"  # its classes are others
    files = {f"train/{name}": image for name, image in named(train).items()}
    files |= {f"test/{name}": image for name, image in named(test, first).items()}
    facts, known, truth = trained(task, write(tmp_path / "before", files))
    assert len(known) == 20

    files[f"test/{first}900"] = files.pop("train/a000")
    files[f"test/{chr(ord(first) + 1)}901"] = files["train/b005"]
    after = write(tmp_path / "after", files)
    _, data = opened(task, after, facts)
    new, report = overlap.new_only(data, known)
    row, left = report["splits"]["test"], pixels(new.evals["test"].examples)
    assert row["examples"] == 22 and row["trained_on"] == 2 and not truth & set(left)
    assert len(left) == (10 if task == "embedding" else 20) == 22 - row["left_out"]

    # A new run is told at once of what is in both; what was moved is in its test alone.
    _, data = opened(task, after)
    new, known, report = overlap.at_training(data)
    row, left = report["splits"]["test"], pixels(new.evals["test"].examples)
    assert row["trained_on"] == 1 and not set(pixels(data.train.examples)) & set(left)
    assert len(left) == (16 if task == "embedding" else 21)
    (said,) = overlap.lines(report)
    assert said == (
        "test: 1 of 4 classes left out, 6 of 22 examples: 1 of these were trained on"
        if task == "embedding"
        else "test: 1 of 22 examples left out: they were trained on"
    )
