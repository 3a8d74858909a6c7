"""The page of all methods: what is in it, and where it is stopped."""

import signal

import pytest
from matplotlib.figure import Figure
from rich.table import Table

from research.errors import UserError
from research.record.report import Report
from research.training.interrupts import Stopped
from research.understanding import page
from research.understanding.config import InputOptimizationConfig


def test_what_a_report_says_is_text_and_no_html(monkeypatch):
    harm = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    report = Report(
        [{"metric": f"a/{harm}", "value": 1.0, "protocol": harm}],
        Table(),
        {f"a/{harm}": Figure(figsize=(1, 1))},
        [harm],
    )
    monkeypatch.setattr(page, "run", lambda experiment, config: report)
    made = page.section(InputOptimizationConfig(), lambda config: None)
    assert made.count("&lt;script&gt;") == 4 and "<script" not in made
    assert made.count("<img") == 1  # the figure's own

    def refuse(config):
        raise UserError(harm)

    assert "<script" not in page.section(InputOptimizationConfig(), refuse)


def test_a_signal_ends_the_whole_gallery_and_not_one_method(monkeypatch, capsys):
    def stop(experiment, config):
        raise Stopped(signal.SIGTERM)  # as the loop does

    monkeypatch.setattr(page, "run", stop)
    with pytest.raises(Stopped):
        page.section(InputOptimizationConfig(), lambda config: None)
    assert "no page was written" in capsys.readouterr().out
