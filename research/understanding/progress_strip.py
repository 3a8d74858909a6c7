"""A strip of how an optimised image came about: images kept on the way, and the result.

They lie in the model state, written on the device by the steps that they are of. So no step waits
for the host, all steps are one program, and a run that is resumed keeps what it had.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from research.experiment import Batch, Losses, Pictures, PyTree, Variables
from research.figures import understanding as figures

SHARES = (0.0, 1 / 8, 1 / 4, 1 / 2)  # of the steps; the result is the last image of the strip

# (images, which of the inputs they are of) -> {name of a loss: its value for each}
NamedLosses = Callable[
    [Float[Array, "n height width channel"], Int[Array, " n"]], Mapping[str, Array]
]


def kept_steps(steps: int) -> tuple[int, ...]:
    """Returns how many steps were done at each image that is kept on the way."""
    return tuple(sorted({int(share * steps) for share in SHARES}))


def empty(
    images: UInt8[np.ndarray, "n height width channel"], steps: int
) -> UInt8[np.ndarray, "n kept height width channel"]:
    """Makes room for the images of a run of so many steps, of the shape of the start."""
    return np.repeat(np.zeros_like(images)[:, None], len(kept_steps(steps)), axis=1)


def keeping(
    loss: Callable[[Variables, Batch, Array, str | None], Losses],
    to_images: Callable[[Array], Array],
    steps: int,
) -> Callable[[Variables, Batch, Array, str | None], Losses]:
    """Makes a loss also keep the image that it is of, at some steps."""
    wanted = jnp.asarray(kept_steps(steps))

    def watched(variables: Variables, batch: Batch, key: Array, axis: str | None) -> Losses:
        values, state, measures = loss(variables, batch, key, axis)
        due = wanted == variables["schedule"]["step"]
        place = jnp.where(due.any(), due.argmax(), len(wanted))  # beyond the end: nothing is kept
        image = as_8_bits(to_images(jax.lax.stop_gradient(variables["params"]["image"])))
        strip = variables["strip"].at[:, place].set(image, mode="drop")
        return values, {**state, "strip": strip}, measures

    return watched


def shown(
    predict: Callable[[Variables, Batch], PyTree], losses: NamedLosses
) -> Callable[[Variables, Batch], PyTree]:
    """Adds the strip to a prediction's outputs, with the losses of its images.

    The losses are of pixels rounded to 8 bits, as all that is said of a result.
    """

    def with_strip(variables: Variables, batch: Batch) -> PyTree:
        outputs = predict(variables, batch)
        if "strip" not in variables:  # a run of an earlier version
            return outputs
        result = outputs["image"].astype(jnp.uint8)[:, None]
        images = jnp.concatenate([variables["strip"][batch["index"]], result], axis=1)
        found = jax.lax.map(  # one after the other: memory, and one network to compile
            lambda x: losses(x.astype(jnp.float32), batch["index"]), jnp.moveaxis(images, 1, 0)
        )
        return {
            **outputs,
            "strip": {
                "images": images,
                "losses": {name: row.T for name, row in found.items()},
                "done": jnp.full(len(images), variables["schedule"]["step"]),
            },
        }

    return with_strip


def drawing(
    draw: Callable[[PyTree, Batch], Pictures], steps: int
) -> Callable[[PyTree, Batch], Pictures]:
    """Adds the figure "progress" to what is drawn: one strip for each input."""

    def with_strip(outputs: PyTree, batch: Batch) -> Pictures:
        drawn: dict[str, Any] = dict(draw(outputs, batch))
        if "strip" not in outputs:
            return drawn
        strip = outputs["strip"]
        done = int(strip["done"][0])
        # A run that was left on the way has not come to all of them.
        columns = [k for k, step in enumerate(kept_steps(steps)) if step < done]
        at = [kept_steps(steps)[k] for k in columns] + [done]
        columns.append(strip["images"].shape[1] - 1)
        captions = [
            [
                f"step {step}\n"
                + "\n".join(
                    f"{name.replace('_', ' ')} {row[i][k]:.3g}"
                    for name, row in strip["losses"].items()
                )
                for step, k in zip(at, columns, strict=True)
            ]
            for i in range(len(strip["images"]))
        ]
        drawn["progress"] = figures.strips(strip["images"][:, columns], captions)
        return drawn

    return with_strip


def as_8_bits(images: Float[Array, "..."]) -> UInt8[Array, "..."]:
    """Rounds values of 0 to 255 as a file holds them, on the device."""
    return jnp.round(jnp.clip(images, 0, 255)).astype(jnp.uint8)
