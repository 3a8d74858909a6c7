"""The images that are kept on the way of an optimisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.understanding import progress_strip


@pytest.mark.parametrize(
    ("steps", "kept"),
    [(200, (0, 25, 50, 100)), (12, (0, 1, 3, 6)), (3, (0, 1)), (1, (0,))],
)
def test_images_are_kept_at_shares_of_the_steps(steps, kept):
    assert progress_strip.kept_steps(steps) == kept


def test_each_image_is_that_of_its_step_whatever_the_order_of_the_batch():
    """Against a plain loop that copies every image to the host."""
    start = np.random.default_rng(0).uniform(0, 255, (2, 3, 4, 1)).astype(np.float32)
    compilations = []

    def loss(variables, batch, key, axis):
        compilations.append(1)
        images, step = variables["params"]["image"], variables["schedule"]["step"]
        return images.sum((1, 2, 3))[batch["index"]], {"schedule": {"step": step + 1}}, {}

    step = jax.jit(progress_strip.keeping(loss, lambda x: x, 16), static_argnums=3)
    state = {
        "schedule": {"step": jnp.int32(0)},
        "strip": jnp.asarray(progress_strip.empty(start.astype(np.uint8), 16)),
    }
    image, plain = jnp.asarray(start), []
    for number in range(16):
        plain.append(np.clip(np.round(np.asarray(image)), 0, 255).astype(np.uint8))
        batch = {"index": jnp.asarray([number % 2, 1 - number % 2])}
        _, state, _ = step({"params": {"image": image}, **state}, batch, jax.random.key(0), None)
        image = image - 3.0 * (1 + jnp.arange(2.0)[:, None, None, None])
    assert len(compilations) == 1
    for k, number in enumerate((0, 2, 4, 8)):
        np.testing.assert_array_equal(state["strip"][:, k], plain[number])


def test_a_run_that_was_left_on_the_way_shows_what_it_has_and_its_result():
    images = np.arange(5, dtype=np.uint8)[None, :, None, None, None] * np.ones(
        (1, 5, 2, 2, 3), "u1"
    )
    losses = {"style_loss": np.arange(5.0)[None] / 10}
    outputs = {"strip": {"images": images, "losses": losses, "done": np.array([6])}}
    figure = progress_strip.drawing(lambda outputs, batch: {}, 16)(outputs, {})["progress"]
    said = [ax.texts[0].get_text() for ax in figure.axes]
    assert said == [
        f"step {step}\nstyle loss {value}"
        for step, value in ((0, "0"), (2, "0.1"), (4, "0.2"), (6, "0.4"))
    ]
    assert [ax.images[0].get_array()[0, 0, 0] for ax in figure.axes] == [0, 1, 2, 4]
