"""The experiment of worked examples: what it prints, draws and refuses; a person's own pictures."""

import json
import re

import cv2
import numpy as np
import pytest

import launch
from research.course.boxes import read_boxes
from research.course.examples import EXAMPLES
from research.errors import UserError
from research.models.filter import EDGE_FILTERS, kernel_of


def run(tmp_path, *flags):
    given = ["--parallel=single", f"--workdir={tmp_path / 'run'}", "--compilation_cache="]
    return launch.main(["x", "--experiment=worked_examples", *flags, *given])


def test_own_picture_and_own_kernel(tmp_path, capsys, figures):
    picture = np.zeros((12, 20, 3), np.uint8)
    picture[:, :10] = 255
    cv2.imwrite(str(tmp_path / "half.png"), picture)
    kernel = "--kernel=1 0 -1 2 0 -2 1 0 -1"
    assert run(tmp_path, "--example=edges", kernel, f"--inputs={tmp_path / 'half.png'}") == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["metrics"]["edges/own_answer"] == 40
    assert result["metrics"]["edges/light_to_dark"] == 30
    printed = capsys.readouterr().out
    assert re.search(r"-10 +-2 +2 +3", printed) and "edges.png" in printed
    own = figures[tmp_path / "run" / "figures" / "own0.png"]
    assert own.images[1].max() == pytest.approx(4)  # brightness in 0..1, Sobel: 1 + 2 + 1
    assert (own.images[1] != 0).any(0).sum() == 2


@pytest.mark.families
def test_own_boxes_are_suppressed_step_by_step(tmp_path, capsys, figures):
    boxes = "--boxes=0 0 2 2 0.9; 0 0 2 2.2 0.8; 5 5 7 7 0.7"
    assert run(tmp_path, "--example=suppression", boxes) == 0
    printed = capsys.readouterr().out
    assert "box 1 of 0.8: IoU 0.91, dropped" in printed
    drawn = figures[tmp_path / "run" / "figures" / "suppression.png"]
    assert drawn.has("step 1", "keep 0.9", "keep 0.7")


def test_list_names_every_example(tmp_path, capsys):
    assert run(tmp_path, "--example=list") == 0
    printed = capsys.readouterr().out
    assert all(f"--example={name}" in printed for name in EXAMPLES)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--example=edge"], "Did you mean 'edges'?"),
        (["--example=iou", "--kernel=scharr"], "has no effect on --example=iou"),
        (["--kernel=sobbel"], "Did you mean 'sobel'?"),
        (["--kernel=1 2 3"], "has 3 numbers"),
        (["--kernel=0 0 0 0"], "lets nothing through"),
        (["--example=suppression", "--boxes=1 1 0 2 0.5"], "has no area"),
        (["--example=suppression", "--boxes=0 0 1 1"], "is not five numbers"),
        (["--inputs=/nowhere.png"], "/nowhere.png"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_written(tmp_path, capsys, flags, said):
    assert run(tmp_path, *flags) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_kernels_and_boxes_as_text():
    np.testing.assert_array_equal(kernel_of("1,0,-1,1,0,-1,1,0,-1"), EDGE_FILTERS["prewitt"])
    np.testing.assert_array_equal(
        kernel_of("sobel_horizontal"), [[1, 2, 1], [0, 0, 0], [-1, -2, -1]]
    )
    boxes, scores = read_boxes("0 0 3 1 0.9; 1,0,4,1,0.8;")
    assert boxes.shape == (2, 4) and scores.tolist() == pytest.approx([0.9, 0.8])
    with pytest.raises(UserError, match="between 0 and 1"):
        read_boxes("0 0 1 1 2")
