"""Coordinates in which an image is optimised; gradient descent depends on them.

Olah, Mordvintsev and Schubert, "Feature visualization", Distill 2017: in Fourier coordinates, with
colours decorrelated, steepest descent makes images less noisy than in pixels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Images = Float[Array, "batch height width channel"]

# Square root of the covariance of the colours of natural images, the largest column of norm 1: the
# figures published with the article (lucid, color.py), measured on ImageNet.
COLOUR_ROOT = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], np.float32)
COLOURS = COLOUR_ROOT / np.linalg.norm(COLOUR_ROOT, axis=0).max()


class Parameterisation(NamedTuple):
    """The coordinates in which an image is optimised.

    Attributes:
      to_images: parameters -> images of values 0..255 (pixels may leave the range).
      from_images: its inverse.
      low, high: the parameters' own range, which optimisation keeps to.
    """

    to_images: Callable[[Array], Images]
    from_images: Callable[[Images], Array]
    low: Array | float = -np.inf
    high: Array | float = np.inf


def pixels(mean: float | Array = 0.0, scale: float = 1.0) -> Parameterisation:
    """Describes an image as mean + scale p: at a data set's mean, p = 0 says nothing."""
    return Parameterisation(
        lambda p: mean + scale * p,
        lambda images: (images - mean) / scale,
        (0.0 - mean) / scale,
        (255.0 - mean) / scale,
    )


def _logit(x: Array) -> Array:
    x = jnp.clip(x, 0.001, 0.999)
    return jnp.log(x / (1 - x))


def squashed(inner: Parameterisation, channels: int, decorrelate: bool) -> Parameterisation:
    """Brings values to 0..255 by a sigmoid of what `inner` gives, which then needs no range.

    Args:
      decorrelate: mix RGB from coordinates in which natural images' colours are uncorrelated.
    """
    is_mixed = decorrelate and channels == 3
    mix = jnp.asarray(COLOURS.T if is_mixed else np.eye(channels, dtype=np.float32))
    back = jnp.linalg.inv(mix)
    return Parameterisation(
        lambda p: 255.0 * jax.nn.sigmoid(inner.to_images(p) @ mix),
        lambda images: inner.from_images(_logit(images / 255.0) @ back),
    )


def fourier(height: int, width: int, decay: float = 1.0) -> Parameterisation:
    """Describes an image by the real and imaginary parts of its spectrum [B, H, W // 2 + 1, C, 2].

    Each is divided by frequency^decay, so a step moves low frequencies farther: the spectrum of
    natural images falls so.
    """
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.sqrt(rows**2 + columns**2)
    shares = np.sqrt(height * width) / 4 / np.maximum(frequency, 1 / max(height, width)) ** decay
    scale = jnp.asarray(shares, jnp.float32)[None, :, :, None]

    def to_images(p: Float[Array, "batch height half channel 2"]) -> Images:
        spectrum = scale * jax.lax.complex(p[..., 0], p[..., 1])
        return jnp.fft.irfft2(spectrum, (height, width), axes=(1, 2))

    def from_images(images: Images) -> Float[Array, "batch height half channel 2"]:
        spectrum = jnp.fft.rfft2(images, axes=(1, 2)) / scale
        return jnp.stack([spectrum.real, spectrum.imag], axis=-1)

    return Parameterisation(to_images, from_images)
