"""What a picture is known by, and the list that a run keeps of what it trained on."""

import cv2
import numpy as np
import pytest

from research.data.images.reading import read
from research.data.sources import overlap
from research.data.sources.contents import Contents, Digested, digest
from research.data.sources.examples import Arrays
from research.data.sources.source import Source
from research.errors import UserError
from research.experiment import Data

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (9, 7, 3), np.uint8)


class Pictures(Arrays):
    """Examples in memory, with labels."""

    @property
    def labels(self):
        return self.fields["label"]


def pictures(images, labels=None):
    labels = np.zeros(len(images), np.int32) if labels is None else np.array(labels, np.int32)
    return Pictures({"image": np.stack(images), "label": labels})


def data(train, test, own=True, by_class=False, read=True):
    """Splits whose pictures were decoded into memory, or not yet."""
    splits = {"train": Digested(train), "test": Digested(test)}
    for split in splits.values() if read else ():
        split.__getitems__(range(len(split)))
    return Data(
        Source(train, 1, 0), {"test": Source(test, 1)}, list, Contents(splits, own, by_class)
    )


def noise(count, seed):
    return list(np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 1), np.uint8))


def test_a_picture_is_known_by_its_pixels_whatever_file_holds_them(tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), PHOTO)
    seen = read(tmp_path / "a.jpg")
    for name in ("a.png", "b.bmp", "c.tif"):
        cv2.imwrite(str(tmp_path / name), seen[:, :, ::-1])
        assert digest(read(tmp_path / name)) == digest(seen)
    cv2.imwrite(str(tmp_path / "again.jpg"), seen[:, :, ::-1])
    assert digest(read(tmp_path / "again.jpg")) != digest(seen)  # other pixels
    assert digest(seen[::-1, ::-1]) != digest(seen) != digest(seen.transpose(1, 0, 2))
    one = seen.copy()
    one[4, 4, 2] ^= 1
    assert digest(one) != digest(seen)
    grey = seen[:, :, :1]
    assert digest(np.repeat(grey, 3, axis=2)) == digest(grey) != digest(seen)
    assert digest(grey.reshape(7, 9, 1)) != digest(grey)


def test_the_list_is_a_sorted_text_whose_sha256_the_facts_hold(tmp_path):
    images = noise(5, 0)
    trained = data(pictures([*images, images[0]]), pictures(noise(2, 1))).contents.trained()
    assert trained == {digest(image) for image in images}
    checkpoint = tmp_path / "RUN" / "checkpoints" / "latest" / "8"
    checkpoint.mkdir(parents=True)
    file = tmp_path / "RUN" / overlap.FILE
    file.write_text(overlap.as_text(trained))
    assert file.read_text().splitlines() == sorted(digest(image).hex() for image in images)
    facts = {"trained_on": overlap.checksum(trained)}
    assert overlap.recall(checkpoint, facts) == (trained, "")

    assert overlap.recall(checkpoint, {})[0] is None  # an old run
    away = tmp_path / "8"
    away.symlink_to(checkpoint)
    assert overlap.recall(away, facts) == (trained, "")
    away.unlink()
    away.mkdir()
    assert overlap.recall(away, facts)[0] is None and "outside" in overlap.recall(away, facts)[1]
    content = bytearray(file.read_bytes())
    for damaged in (content[:-33], content[:7] + b"x" + content[8:], b""):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=f"{overlap.FILE}: is damaged"):
            overlap.recall(checkpoint, facts)
    file.unlink()
    assert overlap.recall(checkpoint, facts) == (None, f"{file} is missing")


def test_of_several_runs_all_that_is_known_is_left_out():
    one, two = frozenset([b"1"]), frozenset([b"2"])
    assert overlap.together([(one, ""), (two, "")]) == ({b"1", b"2"}, "")
    assert overlap.together([(one, ""), (None, "lost")]) == (one, "lost")
    assert overlap.together([(None, "lost")]) == (None, "lost")


def test_a_published_set_is_counted_and_not_read_for_it(capsys):
    images = noise(4, 0)
    for own in (True, False):
        both = data(pictures(images), pictures([*noise(3, 1), images[2]]), own)
        new, trained, report = overlap.at_training(both)
        row = report["splits"]["test"]
        assert row == {"examples": 4, "trained_on": 1, "left_out": int(own)}
        assert len(new.evals["test"].examples) == 4 - own and len(trained) == 4
        assert ("counted, not left out" in overlap.lines(report)[0]) != own
    large = data(pictures(images), pictures(images), own=False, read=False)
    new, trained, report = overlap.at_training(large)
    assert trained is None and report["splits"]["test"]["trained_on"] is None
    assert "cannot be told: a published set" in overlap.lines(report)[0]
    assert not capsys.readouterr().out
    # A person's own is read, whatever its size.
    large = data(pictures(images), pictures([images[0], *noise(1, 1)]), read=False)
    assert overlap.at_training(large)[2]["splits"]["test"]["left_out"] == 1
    assert "reading 4 pictures once" in capsys.readouterr().out


def test_where_nothing_is_left_it_says_so(capsys):
    images = noise(6, 0)
    all_trained = data(pictures(images), pictures(images[:2]))
    with pytest.raises(UserError, match="nothing is left of test beside what is trained on"):
        overlap.at_training(all_trained)
    with pytest.raises(UserError, match=r"nothing is left of test .* that was not trained on"):
        overlap.new_only(all_trained, frozenset(map(digest, images)))
    classes = data(
        pictures(images), pictures([images[0], *noise(3, 1)], [6, 6, 7, 7]), by_class=True
    )
    with pytest.raises(UserError, match="fewer than two classes are left of test"):
        overlap.at_training(classes)
    # Another split may be left.
    other = all_trained._replace(evals={**all_trained.evals, "train": all_trained.train})
    other.contents.splits["train"].__getitems__(range(6))
    new, report = overlap.new_only(other, frozenset(map(digest, images[:2])))
    assert list(new.evals) == ["train"] and report["splits"]["train"]["left_out"] == 2


def test_a_set_may_have_nothing_to_evaluate_on():
    alone = data(pictures(noise(4, 0)), pictures(noise(4, 1)))._replace(evals={})
    assert overlap.at_training(alone)[2] == {"splits": {}, "unknown": ""}


def test_what_cannot_be_told_is_said(capsys):
    both = data(pictures(noise(4, 0)), pictures(noise(4, 0)))
    new, report = overlap.new_only(both, None, "RUN/trained_on.txt is missing")
    assert len(new.evals["test"].examples) == 4
    assert report["splits"]["test"] == {"examples": 4, "trained_on": None, "left_out": 0}
    assert overlap.lines(report) == [
        "whether examples were trained on cannot be told: RUN/trained_on.txt is missing"
    ]


def test_what_the_weights_to_start_from_were_trained_on_counts_too():
    images = noise(6, 0)
    both = data(pictures(images[:3]), pictures(images[3:]))
    before = frozenset([digest(images[4])])
    new, trained, report = overlap.at_training(both, (before, ""))
    assert trained == frozenset(map(digest, images[:3])) | before
    assert report["splits"]["test"]["left_out"] == 1 and len(new.evals["test"].examples) == 2
    _, trained, report = overlap.at_training(both, (None, "the list is missing"))
    assert len(trained) == 3 and report["unknown"] == "the list is missing"
