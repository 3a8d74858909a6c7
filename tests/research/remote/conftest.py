"""The stand-in for a store, for all tests of this folder."""

from stores import stores

__all__ = ["stores"]
