import numpy as np
import pytest

from research.data.text.windows import load, windows
from research.errors import UserError


def test_windows_hold_each_stretch_and_what_follows_it():
    codes = np.arange(41, dtype=np.int32)
    trained, held = windows(codes, 8, 0.25)
    # The last ends with the text, however far it is from the one before.
    assert [w["tokens"].tolist() for w in map(trained.__getitem__, range(len(trained)))] == [
        list(range(s, s + 9)) for s in [*range(0, 22, 2), 22]
    ]
    assert all(trained[i]["counted"].all() for i in range(len(trained)))
    np.testing.assert_array_equal(held[0]["tokens"], np.arange(31, 40))


@pytest.mark.parametrize("count", [91, 92, 99, 100, 101])
def test_held_out_windows_ask_for_every_character_once(count):
    _, held = windows(np.arange(count, dtype=np.int32), 9, 0.5)
    rows = [held[i] for i in range(len(held))]
    assert all(row["tokens"].shape == (10,) and row["counted"].shape == (9,) for row in rows)
    asked = np.concatenate([row["tokens"][1:][row["counted"]] for row in rows])
    first = count - round(0.5 * count)  # is read before anything is asked
    np.testing.assert_array_equal(asked, np.arange(first + 1, count))


def test_without_a_held_out_part_the_whole_text_is_both():
    trained, held = windows(np.arange(5, dtype=np.int32), 4, 0.0)
    assert len(trained) == len(held) == 1
    np.testing.assert_array_equal(trained[0]["tokens"], held[0]["tokens"])


@pytest.mark.parametrize(("count", "share", "part"), [(4, 0.0, "text"), (30, 0.1, "held-out end")])
def test_a_text_shorter_than_one_sequence_is_refused(count, share, part):
    with pytest.raises(UserError, match=rf"--sequence_length=4: the {part} has \d+ characters"):
        windows(np.arange(count, dtype=np.int32), 4, share)


def test_files_that_are_no_text(tmp_path):
    with pytest.raises(UserError, match=r"--text=.*none: cannot be read \(No such file"):
        load(tmp_path / "none")
    (tmp_path / "a.txt").write_bytes("schön".encode("latin-1"))
    with pytest.raises(UserError, match=r"a.txt: is not UTF-8 \(byte 3\); convert it"):
        load(tmp_path / "a.txt")


def test_a_text_that_comes_with_python_needs_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = load("python_manual")
    assert len(text) > 500_000 and "Assignment is defined recursively" in text
    (tmp_path / "python_manual").write_text("mine")
    with pytest.raises(UserError, match="--text=python_manual: is the name of a built-in text"):
        load("python_manual")
    assert load("./python_manual") == "mine"
