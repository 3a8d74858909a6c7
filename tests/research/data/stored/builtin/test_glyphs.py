import unicodedata

import numpy as np
import pytest

from research.data import datasets
from research.data.sources.examples import decode
from research.data.stored.builtin import glyphs
from research.data.tasks import embedding as task


@pytest.fixture(scope="module")
def drawn():
    return glyphs.render_all(glyphs.font_folder())


def test_letters_are_wanted_and_what_only_looks_like_writing_is_not():
    assert all(map(glyphs.is_wanted, map(ord, "aZЖωאბ")))
    # Accented, box drawing, Braille, digit, sign, ligature, full width.
    assert not any(map(glyphs.is_wanted, map(ord, "éÖ─⠿7$ﬁＡ")))


def test_ink_fills_the_box_in_the_middle(drawn):
    assert set(drawn) == set(glyphs.FACES)
    for face in ("DejaVuSans", "STIXGeneralItalic"):
        for code in map(ord, "Al"):
            rows, columns = np.nonzero(drawn[face][code])
            size = max(np.ptp(rows), np.ptp(columns)) + 1
            assert abs(size - glyphs.FINE * glyphs.BOX) <= 2
            middle = glyphs.FINE * glyphs.SIDE / 2 - 0.5
            assert abs(rows.min() + rows.max() - 2 * middle) <= 2
            assert abs(columns.min() + columns.max() - 2 * middle) <= 2


def test_the_same_letter_of_several_scripts_is_one_class_and_others_are_not(drawn):
    classes = glyphs.merge(drawn)
    where = {chr(code): number for number, members in enumerate(classes) for code in members}
    assert sum(map(len, classes)) == len(where) and len(classes) == 1187
    for alike in ("AΑА", "oοо", "pр", "HΗН"):
        assert len({where[c] for c in alike}) == 1
    for different in ("nu", "hb", "bd", "pq", "EF", "NИ", "wm"):
        assert len({where[c] for c in different}) == len(different)


def test_relative_distance_is_that_of_the_formula():
    x = np.random.default_rng(0).random((4, 9)).astype("f")
    found = glyphs.relative_distances(x)
    for i, j in np.ndindex(4, 4):
        want = 2 * ((x[i] - x[j]) ** 2).sum() / ((x[i] ** 2).sum() + (x[j] ** 2).sum())
        assert found[i, j] == pytest.approx(want, abs=1e-5)


def test_the_built_set_is_split_by_character_and_deterministic(tmp_path_factory, monkeypatch):
    few = {face: number for face, number in glyphs.FACES.items() if "Bold" not in face}
    wanted = lambda code: 0x40 < code < 0x5B or 0x390 < code < 0x3AA  # Latin and Greek capitals
    monkeypatch.setattr(glyphs, "is_wanted", wanted)
    monkeypatch.setattr(glyphs, "FACES", few)
    folders = [tmp_path_factory.mktemp(name) for name in "ab"]
    one, other = (datasets.load("glyphs", folder, task.TASK) for folder in folders)
    splits = task.by_class(one)
    labels = {split: set(part.labels.tolist()) for split, part in splits.items()}
    assert not labels["train"] & labels["test"]
    assert len(labels["test"]) == round(0.3 * (len(labels["train"]) + len(labels["test"])))
    assert one.class_names[0] == "U+0041 LATIN CAPITAL LETTER A"
    names = [unicodedata.lookup(name.partition(" ")[2]) for name in one.class_names]
    assert "Α" not in names and "Ω" in names  # Greek Alpha is Latin A
    for split in ("train", "test"):
        a, b = (decode(made.splits[split]).fields for made in (one, other))
        for field in ("image", "label", "domain"):
            np.testing.assert_array_equal(a[field], b[field])
        assert a["image"].shape[1:] == (28, 28, 1) and set(a["domain"]) <= set(range(4))
