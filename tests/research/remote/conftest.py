"""The stand-in for a store, and another machine, for all tests of this folder."""

import pytest
from stores import stores

__all__ = ["on", "stores"]


@pytest.fixture
def on(monkeypatch, tmp_path):
    """Makes this another machine: its cache is elsewhere."""
    return lambda name: monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
