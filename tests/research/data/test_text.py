import numpy as np
import pytest

from research.data.text import read_text, windows
from research.errors import UserError


def test_windows_hold_each_stretch_and_what_follows_it():
    codes = np.arange(40, dtype=np.int32)
    trained, held = windows(codes, 8, 0.25)
    assert [w["tokens"].tolist() for w in map(trained.__getitem__, range(len(trained)))] == [
        list(range(s, s + 9)) for s in range(0, 22, 2)
    ]
    np.testing.assert_array_equal(held[0]["tokens"], np.arange(30, 39))
    assert len(held) == 1


def test_held_out_windows_cover_every_character_once_but_for_a_rest():
    _, held = windows(np.arange(100, dtype=np.int32), 9, 0.5)
    read = np.concatenate([held[i]["tokens"][:-1] for i in range(len(held))])
    np.testing.assert_array_equal(read, np.arange(50, 50 + 9 * 5))


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
        read_text(tmp_path / "none")
    (tmp_path / "a.txt").write_bytes("schön".encode("latin-1"))
    with pytest.raises(UserError, match=r"a.txt: is not UTF-8 \(byte 3\); convert it"):
        read_text(tmp_path / "a.txt")
