import json

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import launch
from research.models.filter import EDGE_FILTERS, kernel_of
from research.nn.convolution import convolution
from research.training.checkpoint import open_checkpoint


@pytest.mark.parametrize(
    ("kernel", "steps"),
    [
        ("0 1 0 1 -4 1 0 1 0", 120),
        pytest.param("sobel", 120, marks=pytest.mark.families),
        pytest.param("scharr", 250, marks=pytest.mark.families),
    ],
    ids=["numbers", "sobel", "scharr"],
)
def test_a_filter_is_found_again_from_pairs_of_images(tmp_path, figures, kernel, steps):
    run = tmp_path / "run"
    code = launch.main(
        [
            "x",
            "--experiment=filtering",
            f"--kernel={kernel}",
            f"--steps={steps}",
            "--parallel=single",
            f"--data_dir={tmp_path}",
            f"--workdir={run}",
            "--compilation_cache=",
        ]
    )
    assert code == 0
    result = json.loads((run / "result.json").read_text())
    toys.check_outcomes(run)
    learned = open_checkpoint(run).variables["params"]["filter"]["kernel"]
    wanted = kernel_of(kernel)
    error = np.abs(learned[:, :, 0, 0] - wanted).max()
    assert error < 0.01 * np.abs(wanted).max()
    assert result["metrics"]["test/kernel_error"] == pytest.approx(error, rel=1e-3)
    drawn = figures[run / "figures" / "test" / "filters.png"]
    assert drawn.has("before", "after", "learned", "wanted" if " " in kernel else kernel)
    np.testing.assert_allclose(drawn.images[0], learned[:, :, 0, 0], rtol=1e-5)
    np.testing.assert_array_equal(drawn.images[1], wanted)
    if " " in kernel:
        filters_an_own_picture(run, tmp_path)


def filters_an_own_picture(run, place):
    picture = np.zeros((9, 14), np.uint8)
    picture[4, 6] = 255
    cv2.imwrite(str(place / "dot.png"), picture)
    flags = [f"--checkpoint={run}", f"--inputs={place / 'dot.png'}", f"--workdir={place / 'out'}"]
    assert launch.main(["x", "--mode=predict", *flags, "--compilation_cache="]) == 0
    filtered = cv2.imread(str(place / "out" / "filtered" / "dot.png"), cv2.IMREAD_GRAYSCALE)
    assert filtered.shape == (7, 12)
    assert filtered[3, 5] == 0 and abs(int(filtered[0, 0]) - 128) <= 1  # -4 at the dot; grey is 0


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--input_normalisation=whitened", "--input_normalisation=whitened"),  # had no effect
        ("--kernel=sobbel", "Did you mean 'sobel'?"),
        ("--kernel=1 2 3 4", "nine numbers are needed"),
        ("--image_size=2", "images of at least 3 x 3 pixels"),  # nothing is left of the images
        ("--eval_batch_size=3", "--eval_batch_size=3 does not divide by 8 devices"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_written(tmp_path, capsys, flag, said):
    given = [f"--data_dir={tmp_path}", f"--workdir={tmp_path / 'run'}", "--compilation_cache="]
    assert launch.main(["x", "--experiment=filtering", flag, *given]) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_edge_filters_see_vertical_edges_alone():
    step = np.zeros((1, 6, 6, 1), np.float32)
    step[:, :, :3] = 10
    for name in ("prewitt", "sobel", "scharr"):
        kernel = EDGE_FILTERS[name]
        found = convolution(jnp.array(step), jnp.array(kernel)[:, :, None, None])[0, :, :, 0]
        weight = 10 * kernel[:, 0].sum()
        np.testing.assert_allclose(found, np.tile([0, weight, weight, 0], (4, 1)))
        across = jnp.array(step.transpose(0, 2, 1, 3))
        turned = convolution(across, jnp.array(kernel)[:, :, None, None])
        np.testing.assert_allclose(turned, 0)
        horizontal = jnp.array(EDGE_FILTERS[f"{name}_horizontal"])[:, :, None, None]
        down = convolution(across, horizontal)[0, :, :, 0]
        np.testing.assert_allclose(down, np.tile([0, weight, weight, 0], (4, 1)).T)
        np.testing.assert_allclose(convolution(jnp.array(step), horizontal), 0)
