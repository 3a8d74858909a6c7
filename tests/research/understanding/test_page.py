"""The page of all methods, where it is stopped."""

import signal

import pytest

from research.training.interrupts import Stopped
from research.understanding import page
from research.understanding.config import InputOptimizationConfig


def test_a_signal_ends_the_whole_gallery_and_not_one_method(monkeypatch, capsys):
    def stop(experiment, config):
        raise Stopped(signal.SIGTERM)  # as the loop does

    monkeypatch.setattr(page, "run", stop)
    with pytest.raises(Stopped):
        page.section(InputOptimizationConfig(), lambda config: None)
    assert "no page was written" in capsys.readouterr().out
