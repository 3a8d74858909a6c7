import json

import cv2
import numpy as np
import pytest

from research.errors import UserError
from research.recognition import identities


def draw(path, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((4, 6, 3), value, np.uint8))


def test_known_images_are_one_subfolder_or_file_an_identity(tmp_path):
    for name in ("ann/1.png", "ann/2.jpg", "bob.png", "cem/deep/1.png", ".hidden/1.png"):
        draw(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    found = identities.read_folder(tmp_path)
    assert found.identities == ("ann", "ann", "bob", "cem")
    assert found.files == tuple(
        str(tmp_path / name) for name in ("ann/1.png", "ann/2.jpg", "bob.png", "cem/deep/1.png")
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "is empty"),
        (["ann.png", "ann.jpg"], "ann.jpg and ann.png are one identity twice"),
        (["ann/1.png", "Ann.png"], "one identity twice"),
        (["ann/notes.txt"], "ann: holds no images"),
    ],
)
def test_folders_that_say_nothing_or_too_much_are_refused(tmp_path, files, message):
    for name in files:
        if name.endswith(".txt"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_text("")
        else:
            draw(tmp_path / name)
    with pytest.raises(UserError, match=message):
        identities.read_folder(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        identities.read_folder(tmp_path / "elsewhere")


def test_pairs_are_two_files_a_line_from_the_folder_of_the_list(tmp_path):
    draw(tmp_path / "a, b.png")
    draw(tmp_path / "c.png")
    file = tmp_path / "pairs.csv"
    file.write_text(f'# first, second\n"a, b.png", c.png\n\n{tmp_path / "c.png"},c.png\n')
    a, c = str(tmp_path / "a, b.png"), str(tmp_path / "c.png")
    assert identities.read_pairs(file) == [(a, c), (c, c)]
    file.write_text("c.png,c.png\r\n", "utf-8-sig")  # as spreadsheets save it
    assert identities.read_pairs(file) == [(c, c)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("c.png\n", "line 1: has 1 columns"),
        ("c.png,c.png\nc.png,d.png\n", r"line 2: .*d\.png: no such file"),
        ("\n# nothing\n", "holds no pairs"),
        ('"' + "c.png " * 30_000, "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_pairs_that_cannot_be_read_are_named(tmp_path, text, message):
    draw(tmp_path / "c.png")
    if text is not None:
        (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        identities.read_pairs(tmp_path / "pairs.csv")


NETWORK = {"preprocessing": {"image_size": [4, 4], "mean": [0.1]}, "weights": "abc"}


def test_embeddings_come_back_as_they_were_saved(tmp_path):
    x = np.random.default_rng(0).normal(size=(3, 2)).astype("f")
    identities.save_embeddings(tmp_path / "x.npz", x, ["a", "b", "ü"], ["1", "1", "2"], NETWORK)
    known, found = identities.load_embeddings(tmp_path / "x.npz", json.loads(json.dumps(NETWORK)))
    np.testing.assert_array_equal(found, x)
    assert known == identities.Identities(("a", "b", "ü"), ("1", "1", "2"))


def test_embeddings_of_another_network_are_refused(tmp_path):
    file = tmp_path / "x.npz"
    identities.save_embeddings(file, np.ones((1, 2), "f"), ["a"], ["1"], NETWORK)
    for what in ("preprocessing", "weights"):
        with pytest.raises(UserError, match=f"was made with other {what} than the checkpoint has"):
            identities.load_embeddings(file, {**NETWORK, what: {"image_size": [8, 8]}})
    identities.save_embeddings(file, np.ones((0, 2), "f"), [], [], NETWORK)
    with pytest.raises(UserError, match="is empty"):
        identities.load_embeddings(file, NETWORK)
    whole = file.read_bytes()
    for damaged in (b"text", b"", whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"is no embeddings\.npz"):
            identities.load_embeddings(file, NETWORK)
