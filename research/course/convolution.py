"""Edge filters on small numbers, mirrored filters, and how often a pixel is used."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num
from scipy import signal

from research.course.config import WorkedExamplesConfig
from research.course.worked import Worked, largest_difference, step
from research.data.images import reading
from research.errors import UserError
from research.figures import course as figures
from research.models.filter import EDGE_FILTERS, kernel_of
from research.nn.convolution import convolution, output_size, same_padding

A6 = np.array(
    [
        [3, 0, 1, 2, 7, 4],
        [1, 5, 8, 9, 3, 1],
        [2, 7, 2, 5, 1, 3],
        [0, 1, 3, 1, 7, 8],
        [4, 2, 1, 6, 2, 8],
        [2, 4, 5, 2, 3, 9],
    ],
    np.float32,
)
STEP = np.repeat(np.array([[10, 10, 10, 0, 0, 0]], np.float32), 6, axis=0)
VERTICAL, HORIZONTAL = EDGE_FILTERS["prewitt"], EDGE_FILTERS["prewitt_horizontal"]


def slide(
    image: Num[Array, "height width"] | Num[np.ndarray, "height width"],
    kernel: Num[Array, "rows columns"] | Num[np.ndarray, "rows columns"],
    **options: Any,
) -> Float[Array, "out_height out_width"]:
    """Cross-correlates one plane with one filter; options are those of `convolution`."""
    planes, filters = jnp.asarray(image, jnp.float32), jnp.asarray(kernel, jnp.float32)
    return convolution(planes[None, :, :, None], filters[:, :, None, None], **options)[0, :, :, 0]


def edges(config: WorkedExamplesConfig) -> Worked:
    """Slides edge filters over the lecture's 6x6 numbers, and over a person's own pictures.

    Raises:
      UserError: for a kernel that is none, and pictures that cannot be read.
    """
    own = kernel_of(config.kernel)
    files = reading.list_images(config.inputs)
    pictures = [reading.read(file).astype(np.float32).mean(-1) / 255 for file in files]
    for file, picture in zip(files, pictures, strict=True):
        if min(picture.shape) < len(own):
            raise UserError(f"{file}: is smaller than the filter, {len(own)} pixels.")
    numbers = np.asarray(slide(A6, VERTICAL))
    answers = {
        "light to dark": np.asarray(slide(STEP, VERTICAL)),
        "dark to light": np.asarray(slide(STEP[:, ::-1], VERTICAL)),
        "horizontal filter": np.asarray(slide(STEP, HORIZONTAL)),
        "Sobel": np.asarray(slide(STEP, EDGE_FILTERS["sobel"])),
        "Scharr": np.asarray(slide(STEP, EDGE_FILTERS["scharr"])),
    }
    wide = max(0, len(own) - len(STEP))  # an edge as large as a larger filter needs
    asked = np.asarray(slide(np.pad(STEP, wide, mode="edge"), own))
    mirrored = np.asarray(slide(A6, VERTICAL[::-1, ::-1]))

    def draw() -> dict[str, Any]:
        drawn = {
            "edges": figures.grids(
                {"6x6 numbers": A6, "vertical filter": VERTICAL, "answer, 4x4": numbers}
                | {"an edge": STEP}
                | answers
            )
        }
        for i, picture in enumerate(pictures):
            title = f"filtered by {config.kernel}"
            grey = (255 * picture).astype(np.uint8)
            drawn[f"own{i}"] = figures.images(
                {"your picture": grey, title: np.asarray(slide(picture, own))}
            )
        return drawn

    return Worked(
        [
            step("6x6 numbers", A6),
            step("* the vertical filter", VERTICAL),
            step("= 4x4; the first is 3+1+2 - 1-8-2 = -5", numbers),
            step("an edge, light to dark", STEP),
            *(step(f"* {name}", answer) for name, answer in answers.items()),
            step(f"the edge * --kernel={config.kernel}", own, "=", asked),
        ],
        {
            "first_entry": (float(numbers[0, 0]), "of A6 * vertical; must be -5"),
            "last_entry": (float(numbers[-1, -1]), "of A6 * vertical; must be -16"),
            "mirrored_sum": (
                float(np.abs(numbers + mirrored).max()),
                "the mirrored filter swaps all signs: largest sum of both answers; must be 0",
            ),
            "light_to_dark": (float(answers["light to dark"].max()), "must be 30"),
            "dark_to_light": (float(answers["dark to light"].min()), "must be -30"),
            "sobel_answer": (float(answers["Sobel"].max()), "to the same edge; must be 40"),
            "scharr_answer": (float(answers["Scharr"].max()), "to the same edge; must be 160"),
            "horizontal_answer": (
                float(np.abs(answers["horizontal filter"]).max()),
                "of the horizontal filter to a vertical edge; must be 0",
            ),
            "turned_difference": (
                largest_difference(HORIZONTAL, np.rot90(VERTICAL, -1)),
                "between the vertical filter turned by 90 degrees and the horizontal; must be 0",
            ),
            "own_answer": (float(asked.flat[np.abs(asked).argmax()]), "of --kernel to the edge"),
        },
        draw,
    )


def angles(config: WorkedExamplesConfig) -> Worked:
    """Finds the direction in which brightness falls, from the answers of two filters."""
    turn, slope = math.radians(config.angle), 2.0
    y, x = np.mgrid[:8, :8].astype(np.float32)
    ramp = -slope * (x * math.cos(turn) + y * math.sin(turn))
    across, down = float(slide(ramp, VERTICAL)[0, 0]), float(slide(ramp, HORIZONTAL)[0, 0])
    turned = math.cos(turn) * VERTICAL + math.sin(turn) * HORIZONTAL
    along = float(slide(ramp, turned)[0, 0])
    hard = np.where(x * math.cos(turn) + y * math.sin(turn) < 4 * math.cos(turn) + 2, 10.0, 0.0)
    every = np.arange(0.0, 91.0, 5.0)
    answers = {
        "vertical filter": (every, 6 * slope * np.cos(np.radians(every))),
        "horizontal filter": (every, 6 * slope * np.sin(np.radians(every))),
        "filter turned alike": (every, np.full(len(every), 6 * slope)),
    }
    title = f"a ramp of slope {slope:g}; here {config.angle:g} degrees"
    return Worked(
        [
            step(f"brightness falls by {slope:g} a pixel, {config.angle:g} degrees off", ramp[:3]),
            step("the filter turned alike: cos t vertical + sin t horizontal", turned),
            step(
                "answers",
                f"vertical {across:.4f} = 6 g cos t, horizontal {down:.4f} = 6 g sin t, "
                f"turned {along:.4f} = 6 g",
            ),
            step(
                "a hard edge of the same direction gives less away: the vertical filter's largest "
                f"answer is {float(slide(hard, VERTICAL).max()):g}"
            ),
        ],
        {
            "vertical_share": (across / (6 * slope), "answer / 6 g; must be cos t"),
            "horizontal_share": (down / (6 * slope), "answer / 6 g; must be sin t"),
            "turned_share": (along / (6 * slope), "answer / 6 g; must be 1"),
            "angle_found": (math.degrees(math.atan2(down, across)), "must be --angle, degrees"),
        },
        lambda: {"angles": figures.curves({title: answers}, ("degrees", "answer"))},
    )


def mirrored(config: WorkedExamplesConfig) -> Worked:
    """Compares cross-correlation with convolution, and tests which of them is associative."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 9, (6, 6)).astype(np.float32)
    first, second = (rng.integers(-2, 3, (3, 3)).astype(np.float32) for _ in range(2))

    def full(a: Any, kernel: Any) -> np.ndarray:
        return np.asarray(slide(a, kernel, padding=len(kernel) - 1))

    def true(a: Any, kernel: Any) -> np.ndarray:
        return full(a, np.asarray(kernel)[::-1, ::-1])

    both = {
        "convolution": (true(true(image, first), second), true(image, true(first, second))),
        "cross-correlation": (full(full(image, first), second), full(image, full(first, second))),
    }
    gaps = {name: largest_difference(*sides) for name, sides in both.items()}
    return Worked(
        [
            step("an image and two filters", image, "", first, "", second),
            step("cross-correlation slides the filter as it is", full(image, first)),
            step("convolution mirrors it first (rot180)", true(image, first)),
            step(
                "(image ∘ a) ∘ b against image ∘ (a ∘ b), largest difference",
                *(f"{name}: {gap:g}" for name, gap in gaps.items()),
            ),
        ],
        {
            "correlate2d_difference": (
                largest_difference(
                    slide(image, first), signal.correlate2d(image, first, mode="valid")
                ),
                "between the layer and scipy's correlate2d; must be 0",
            ),
            "convolve2d_difference": (
                largest_difference(
                    true(image, first), signal.convolve2d(image, first, mode="full")
                ),
                "between the layer with the mirrored filter and convolve2d; must be 0",
            ),
            "convolution_gap": (gaps["convolution"], "associativity; must be 0"),
            "correlation_gap": (gaps["cross-correlation"], "associativity fails; must be above 1"),
        },
        lambda: {
            "mirrored": figures.grids(
                {
                    "image": image,
                    "filter": first,
                    "cross-correlation": full(image, first),
                    "convolution": true(image, first),
                }
            )
        },
    )


def padding(config: WorkedExamplesConfig) -> Worked:
    """Counts how many sums each pixel enters, without and with padding."""

    def uses(padding: int) -> np.ndarray:
        total = lambda image: slide(image, np.ones((3, 3)), padding=padding).sum()
        return np.asarray(jax.grad(total)(jnp.zeros((6, 6))))

    valid, same = uses(0), uses(1)
    rows = [
        f"f={f}: p={same_padding((f, f))[0][0]}, 6 -> {output_size(6, f, padding=(f - 1) // 2)}; "
        f"without padding {output_size(6, f)}"
        for f in (1, 3, 5)
    ]
    sizes = [output_size(9, f, padding=same_padding((f, f))[0][0]) for f in (1, 3, 5, 7)]
    return Worked(
        [
            step("sums that each of 6x6 pixels enters, 3x3 filter, valid", valid),
            step("the same with one pixel of padding", same),
            step("same padding, (f - 1) / 2 on each side", *rows),
            step("an even filter would need (2 - 1) / 2 = 0.5"),
        ],
        {
            "corner_uses": (float(valid[0, 0]), "valid; must be 1"),
            "border_uses": (float(valid[0, 2]), "valid, of pixel (0, 2); must be 3"),
            "centre_uses": (float(valid[2, 2]), "must be 9"),
            "padded_corner_uses": (float(same[0, 0]), "with p = 1; must be 4"),
            "valid_size": (float(output_size(6, 3)), "of 6 with f = 3; must be 4"),
            "padded_size": (float(slide(A6, VERTICAL, padding=1).shape[0]), "p = 1; must be 6"),
            "same_sizes": (float(np.ptp(sizes)), "range over f = 1, 3, 5, 7; must be 0"),
            "even_padding": ((2 - 1) / 2, "that f = 2 needs; must be 0.5"),
        },
        lambda: {"padding": figures.grids({"valid: uses": valid, "one pixel of padding": same})},
    )
