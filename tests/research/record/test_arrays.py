"""NumPy's files: nothing in them runs, and none is larger than it may be."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from research.errors import UserError
from research.recognition.identities import load_embeddings
from research.record import arrays, outcomes


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def written(path, **members):
    """A file of NumPy's form with any bytes as arrays."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def array(value):
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


def test_no_pickle_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    harm = np.array([Harm()], object)
    for content in (array(harm), pickle.dumps(Harm())):
        path = written(tmp_path / "a.npz", index=content, embedding=content)
        with pytest.raises(UserError, match=r"a.npz: is damaged"):
            outcomes.read(path)
        with pytest.raises(UserError, match=r"a.npz: is no embeddings.npz"):
            load_embeddings(path, {})
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(UserError, match=r"b.npz: is damaged"):
        outcomes.read(tmp_path / "b.npz")
    assert not (tmp_path / "harm").exists()


def test_what_unpacks_to_too_much_is_not_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, index=np.zeros(2**20, np.int64))
    assert path.stat().st_size < 2**14
    monkeypatch.setattr(arrays, "MOST_BYTES", 2**22)
    with pytest.raises(UserError, match=r"damaged \(has 8,388,\d+ bytes unpacked; 4,194,304 at"):
        outcomes.read(path)
    claims = array(np.zeros(3)).replace(b"(3,)", b"(%d,)" % 10**15)
    with pytest.raises(UserError, match=r"a.npz: is damaged"):
        outcomes.read(written(path, index=claims))
