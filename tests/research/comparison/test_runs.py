import json

import pytest

from research.comparison.runs import read_run, report


def write_run(folder, losses, accuracy=None, seconds=2.0):
    """A run's folder as the loop leaves it; without `accuracy`, one that stopped."""
    folder.mkdir()
    lines = [{"step": i, "train/loss": x, "seconds": i} for i, x in enumerate(losses, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if accuracy is not None:
        result = {
            "metrics": {"test/accuracy": accuracy},
            "seconds": seconds,
            "best": ["test/accuracy", "max"],
        }
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_runs_of_a_label_are_a_mean_and_a_deviation(tmp_path):
    runs = {
        "a": [
            read_run(write_run(tmp_path / "a0", [2.0, 1.0], 0.8)),
            read_run(write_run(tmp_path / "a1", [2.0, 3.0], 0.9)),
        ],
        "b": [read_run(write_run(tmp_path / "b", [5.0], None), "the loss is nan; lower it")],
    }
    found = report(runs)
    cells = [list(column.cells) for column in found.table.columns]
    names = [column.header for column in found.table.columns]
    assert names == ["variant", "train/loss", "test/accuracy", "seconds"]
    # Sample deviation of (1, 3) and of (0.8, 0.9).
    assert cells[1][0] == "2 ± 1.4" and cells[2][0] == "0.85 ± 0.071" and cells[3][0] == "2 ± 0"
    assert cells[0][1:] == ["b", "  stopped: the loss is nan"]
    assert (cells[1][1], cells[2][1], cells[3][1]) == ("5", "-", "-")
    assert [row["run"] for row in found.rows] == [0, 1, 0]
    assert found.rows[1]["test/accuracy"] == 0.9 and found.rows[2]["failure"]
    panel = found.figures["curves"].axes[0]
    assert panel.get_lines()[0].get_ydata() == pytest.approx([2.0, 2.0])


def test_a_run_that_logged_nothing_has_no_numbers(tmp_path):
    (tmp_path / "empty").mkdir()
    run = read_run(tmp_path / "empty", "out of luck")
    assert run.numbers == {} and run.best == "" and run.failure == "out of luck"
    assert len(report({"empty": [run]}).rows) == 1
