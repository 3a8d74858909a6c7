"""Geometry of augmentation: affine maps and elastic fields that move images, masks and boxes.

Points are (x, y) in pixels, x to the right and y downwards; pixel (row i, column j) covers
[j, j + 1] x [i, i + 1], so that its centre is (j + 0.5, i + 0.5) and a box around the whole image
is (0, 0, width, height). A matrix [[a, b, tx], [c, d, ty]] takes points of the input to points of
the output; images and masks look up, for each pixel of the output, where it came from.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Num, Shaped

Scalar = Float[Array, ""] | float


def affine(
    height: int,
    width: int,
    *,
    flip: tuple[Scalar, Scalar] = (1.0, 1.0),
    rotation: Scalar = 0.0,
    shear: Scalar = 0.0,
    scale: Scalar = 1.0,
    shift: tuple[Scalar, Scalar] = (0.0, 0.0),
) -> Float[Array, "2 3"]:
    """Mirrors, then shears, scales and rotates about the image's centre, then shifts.

    Args:
      flip: (-1, 1) mirrors left and right, (1, -1) top and bottom, (1, 1) does neither.
      rotation: degrees, counter-clockwise as one looks at the image.
      shear: degrees by which vertical lines lean.
      scale: above 1 makes things larger.
      shift: (x, y) in pixels.
    """
    cos, sin = _cos_sin(rotation)
    lean = jnp.tan(jnp.deg2rad(shear))
    # Written out, as matrix products run at reduced precision on some accelerators.
    a, b = scale * cos * flip[0], scale * (cos * lean + sin) * flip[1]
    c, d = -scale * sin * flip[0], scale * (cos - sin * lean) * flip[1]
    x, y = width / 2, height / 2
    return jnp.stack(
        [
            jnp.stack([a, b, x + shift[0] - (a * x + b * y)]),
            jnp.stack([c, d, y + shift[1] - (c * x + d * y)]),
        ]
    ).astype(jnp.float32)


def _cos_sin(degrees: Scalar) -> tuple[Scalar, Scalar]:
    angle = jnp.deg2rad(degrees)
    return jnp.cos(angle), jnp.sin(angle)


def invert(matrix: Float[Array, "2 3"]) -> Float[Array, "2 3"]:
    """Returns the inverse map; exact for mirror images and shifts by whole pixels."""
    (a, b, x), (c, d, y) = matrix
    determinant = a * d - b * c
    p, q, r, s = d / determinant, -b / determinant, -c / determinant, a / determinant
    return jnp.stack([jnp.stack([p, q, -(p * x + q * y)]), jnp.stack([r, s, -(r * x + s * y)])])


def elastic_field(
    key: Key[Array, ""], height: int, width: int, alpha: float, sigma: float
) -> Float[Array, "{height} {width} 2"]:
    """Draws smooth random displacements (dx, dy) in pixels: Simard et al. 2003, section 2.

    Uniform noise in [-1, 1] times `alpha`, smoothed by a Gaussian of standard deviation `sigma`
    pixels; each displacement has zero mean and a standard deviation of alpha / (2 sigma sqrt(3 pi))
    pixels, 1.4 for the paper's alpha 34 and sigma 4 on digits.
    """
    noise = jax.random.uniform(key, (height, width, 2), minval=-1.0, maxval=1.0)
    rows, columns = _smoothing(height, sigma), _smoothing(width, sigma)
    return alpha * jnp.einsum("yi,xj,ijc->yxc", rows, columns, noise, precision="highest")


def _smoothing(size: int, sigma: float) -> np.ndarray:
    """Returns rows [size, size] of Gaussian weights; near borders too, squares sum to the same."""
    offset = np.arange(size)[:, None] - np.arange(size)[None]
    weights = np.exp(-0.5 * (offset / sigma) ** 2)
    norm = 1 / math.sqrt(2 * sigma * math.sqrt(math.pi))  # of an endless row of Gaussian weights
    return (weights * norm / np.sqrt((weights**2).sum(1, keepdims=True))).astype(np.float32)


def warp_image(
    image: Float[Array, "height width channel"],
    matrix: Float[Array, "2 3"],
    field: Float[Array, "height width 2"] | None = None,
) -> Float[Array, "height width channel"]:
    """Resamples once, bilinearly, at the place `matrix` and then `field` say; 0 from outside."""
    return _resample(image, matrix, field, order=1)


def warp_part(
    image: Float[Array, "height width channel"],
    matrix: Float[Array, "2 3"],
    size: tuple[int, int],
) -> Float[Array, "{size[0]} {size[1]} channel"]:
    """Warps as `warp_image` does, to another (height, width)."""
    return _resample(image, matrix, None, order=1, size=size)


def warp_mask(
    mask: Shaped[Array, "height width"],
    matrix: Float[Array, "2 3"],
    field: Float[Array, "height width 2"] | None = None,
    outside: int = 0,
) -> Shaped[Array, "height width"]:
    """Moves class numbers as `warp_image` moves pixels: the nearest one; `outside` from outside."""
    return _resample(mask[..., None], matrix, field, order=0, outside=outside)[..., 0]


def _resample(
    values: Num[Array, "height width channel"],
    matrix: Float[Array, "2 3"],
    field: Float[Array, "height width 2"] | None,
    order: int,
    outside: int = 0,
    size: tuple[int, int] | None = None,
) -> Num[Array, "new_height new_width channel"]:
    height, width = values.shape[:2] if size is None else size
    x, y = jnp.arange(width) + 0.5, jnp.arange(height)[:, None] + 0.5
    (a, b, tx), (c, d, ty) = invert(matrix)
    source_x, source_y = a * x + b * y + tx - 0.5, c * x + d * y + ty - 0.5
    if field is not None:
        source_x, source_y = source_x + field[..., 0], source_y + field[..., 1]
    return jax.vmap(
        lambda plane: jax.scipy.ndimage.map_coordinates(
            plane, [source_y, source_x], order=order, cval=outside
        ),
        in_axes=-1,
        out_axes=-1,
    )(values)


def warp_points(points: Float[Array, "*n 2"], matrix: Float[Array, "2 3"]) -> Float[Array, "*n 2"]:
    """Moves points (x, y); they may leave the image. An elastic field is not followed."""
    x, y = points[..., 0], points[..., 1]
    (a, b, tx), (c, d, ty) = matrix
    return jnp.stack([a * x + b * y + tx, c * x + d * y + ty], axis=-1)


def boxes_around(boxes: Float[Array, "n 4"], matrix: Float[Array, "2 3"]) -> Float[Array, "n 4"]:
    """Returns the upright boxes around the moved ones, which may leave the image."""
    corners = jnp.stack([boxes[:, [0, 1]], boxes[:, [2, 1]], boxes[:, [0, 3]], boxes[:, [2, 3]]])
    moved = warp_points(corners, matrix)  # [4, n, 2]
    return jnp.concatenate([moved.min(0), moved.max(0)], axis=1)


def clip_boxes(boxes: Float[Array, "*n 4"], height: int, width: int) -> Float[Array, "*n 4"]:
    """Ends boxes at the image's border."""
    return jnp.clip(boxes, 0.0, jnp.array([width, height] * 2, jnp.float32))
