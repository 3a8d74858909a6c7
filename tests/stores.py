"""A stand-in for an object store, behind fsspec: no lock, no rename, no append, no folders."""

import io

import pytest
from fsspec.spec import AbstractFileSystem

from research.remote import lease, store


class Killed(BaseException):
    """The process has ended."""


class Bucket(AbstractFileSystem):
    """Files in memory, by name; each change leaves a copy of all in `history`."""

    protocol = ("gs", "gcs", "s3")
    cachable = False
    files, history, refuses = None, None, None  # arguments would be made to a key by fsspec

    def ls(self, path, detail=True, **_):
        path = self._strip_protocol(path).rstrip("/")
        self.refuses("list", path)
        found = {}
        for name in [*self.files]:
            if name == path:
                found[name] = {"name": name, "size": len(self.files[name]), "type": "file"}
            elif name.startswith(f"{path}/"):
                first, slash, _ = name[len(path) + 1 :].partition("/")
                child = f"{path}/{first}"
                kind = "directory" if slash else "file"
                size = 0 if slash else len(self.files[name])
                found[child] = {"name": child, "size": size, "type": kind}
        if not found:
            raise FileNotFoundError(path)
        return [*found.values()] if detail else [*found]

    def _open(self, path, mode="rb", **_):
        self.refuses("read" if mode == "rb" else "write", path)
        if mode == "rb":
            if path not in self.files:
                raise FileNotFoundError(path)
            return io.BytesIO(self.files[path])
        assert mode == "wb", f"a store has no {mode!r}"
        return Written(self, path)

    def change(self, path, content):
        self.refuses("write", path)
        if content is None:
            del self.files[path]
        else:
            self.files[path] = content
        self.history.append(dict(self.files))

    def _rm(self, path):
        path = self._strip_protocol(path)
        if path not in self.files:
            raise FileNotFoundError(path)
        self.change(path, None)

    def cp_file(self, *_, **__):
        raise NotImplementedError

    def mv(self, *_, **__):
        raise NotImplementedError


class Written(io.BytesIO):
    """A file that is in the store once it is closed without an error."""

    def __init__(self, bucket, path):
        super().__init__()
        self.bucket, self.path = bucket, path

    def __exit__(self, kind, *_):
        if kind is None:
            self.bucket.change(self.path, self.getvalue())
        super().close()


class Stores:
    """What lies in the store, and what has happened there.

    Attributes:
      files: {BUCKET/NAME: content}.
      history: `files` after each change.
      refuses: (what, name) -> None, or raises; asked before each read, write and list.
    """

    def __init__(self):
        self.files, self.history = {}, []
        self.refuses = lambda what, name: None
        self.bucket = Bucket()
        self.bucket.files, self.bucket.history = self.files, self.history
        self.bucket.refuses = lambda *asked: self.refuses(*asked)

    def lie(self, folder, then=None):
        """Returns what lies in a folder, now or then, but for the lease: {name: content}."""
        start = f"{folder}/"
        files = self.files if then is None else then
        found = {n.removeprefix(start): file for n, file in files.items() if n.startswith(start)}
        return {name: file for name, file in found.items() if name[0] != "."}


@pytest.fixture
def stores(monkeypatch, tmp_path):
    """A store at gs:// and s3://, for a machine whose cache is at tmp_path/machine."""
    from etils.epath import backend

    made = Stores()
    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", lambda name: made.bucket)
    monkeypatch.setattr(store, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(lease, "SETTLES", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))
    return made
