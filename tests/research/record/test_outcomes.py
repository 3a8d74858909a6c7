"""Outcomes of single examples, on disk: what is read is what was written, and damage is named."""

import ml_dtypes
import numpy as np
import pytest

from research.errors import UserError
from research.record import outcomes
from research.record.outcomes import Outcomes, read, save

COUNT = 23
RNG = np.random.default_rng(0)
FOUND = Outcomes(
    index=np.arange(COUNT) * 2,
    names=tuple(f"photos/Übung {k}.png" for k in range(COUNT)),
    values={"loss": RNG.random(COUNT, "f"), "accuracy/50%": np.ones(COUNT, "f")},
    weights={"loss": np.arange(COUNT, dtype="f"), "accuracy/50%": np.zeros(COUNT, "f")},
    held={"plain": RNG.integers(0, 9, (COUNT, 4)), "a/b": {"c/d": {"e%2F": RNG.random(COUNT)}}},
    targets={"label": RNG.integers(0, 3, COUNT), "word": np.array(["äh"] * COUNT)},
)


def same(one, other):
    """Whether two trees have the same names and arrays."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    return one.dtype == other.dtype and np.array_equal(one, other)


def test_what_is_read_is_what_was_written(tmp_path):
    path = tmp_path / "examples" / "test.npz"
    assert save(path, FOUND) == {}
    again = read(path)
    assert again.names == FOUND.names and same(again.index, FOUND.index)
    for field in ("values", "weights", "held", "targets"):
        assert same(getattr(again, field), getattr(FOUND, field)), field
    few = read(path, whole=False)
    assert few.values.keys() == FOUND.values.keys() and not few.held and not few.targets
    assert [file.name for file in path.parent.iterdir()] == ["test.npz"]  # nothing temporary
    with np.load(path) as file:  # anybody can open it
        assert file["values/accuracy%2F50%25"].tolist() == [1.0] * COUNT


def test_the_mean_is_weighted_and_a_measure_that_never_counts_has_none():
    expected = sum(k * float(x) for k, x in enumerate(FOUND.values["loss"])) / sum(range(COUNT))
    assert FOUND.mean("loss") == pytest.approx(expected, rel=1e-12)
    assert np.isnan(FOUND.mean("accuracy/50%"))


def test_the_same_outcomes_are_the_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        save(tmp_path / name, FOUND)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_what_is_large_or_no_array_stays_out_and_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(outcomes, "MOST_BYTES", 8 * COUNT)
    held = {
        "small": np.zeros(COUNT),
        "large": {"map": np.zeros((COUNT, 2))},
        "tuple": (np.zeros(COUNT),),
        "objects": np.array([{}] * COUNT),
        "half": np.full(COUNT, 1.5, ml_dtypes.bfloat16),
    }
    left_out = save(tmp_path / "test.npz", FOUND._replace(held=held, targets={}))
    assert left_out.keys() == {"held/large/map", "held/tuple", "held/objects"}
    assert left_out["held/large/map"] == f"{16 * COUNT} bytes; {8 * COUNT} at most"
    again = read(tmp_path / "test.npz").held
    assert again.keys() == {"small", "half"}
    assert again["half"].dtype == np.float32 and (again["half"] == 1.5).all()


def test_damage_and_absence_are_one_line_with_the_files_name(tmp_path):
    path = tmp_path / "test.npz"
    save(path, FOUND)
    content = path.read_bytes()
    for place in range(60, len(content) - 1, len(content) // 15):
        flipped = bytearray(content)
        flipped[place] ^= 4
        path.write_bytes(flipped)
        try:
            again = read(path)
        except UserError as error:
            assert str(error).startswith(f"{path}: is damaged")
        else:  # a bit that says nothing, such as of a date
            assert same(again.values, FOUND.values) and same(again.held, FOUND.held)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="is damaged"):
        read(path)
    with pytest.raises(UserError, match=r"none.npz: is missing; .*--mode=evaluate"):
        read(tmp_path / "none.npz")


def test_a_write_that_fails_leaves_the_file_before_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "test.npz"
    save(path, FOUND)
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match=r"test\.npz"):
        save(path, FOUND._replace(names=()))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
