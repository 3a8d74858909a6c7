"""The page of all methods, where it is stopped."""

import pytest

from research.errors import UserError
from research.understanding import page
from research.understanding.config import InputOptimizationConfig


def test_a_signal_ends_the_whole_gallery_and_not_one_method(monkeypatch):
    monkeypatch.setattr(page, "run", lambda experiment, config: None)  # as the loop says it
    with pytest.raises(UserError, match="was stopped"):
        page.section(InputOptimizationConfig(), lambda config: None)
