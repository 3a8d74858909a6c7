"""Metrics of restored images, compared with the true ones."""

import dm_pix
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.errors import UserError
from research.experiment import Measures

WINDOW = 11  # pixels, side of the window of structural similarity
Images = Float[Array, "batch height width channel"]


def psnr(images: Images, true: Images) -> Float[Array, " batch"]:
    """Computes each image's peak signal-to-noise ratio, dB: 10 log10(1 / mean squared error).

    Args:
      images, true: values in 0..1; values of `images` outside are clipped.
    """
    error = jnp.square(jnp.clip(images, 0.0, 1.0) - true).mean((1, 2, 3))
    return -10.0 * jnp.log10(jnp.maximum(error, 1e-10))  # 100 dB where they are equal


def ssim(images: Images, true: Images) -> Float[Array, " batch"]:
    """Computes each image's structural similarity, up to 1: Wang et al. 2004.

    In a Gaussian window of 11 x 11 pixels with deviation 1.5.

    Raises:
      UserError: for images smaller than the window.
    """
    height, width = images.shape[1:3]
    if min(height, width) < WINDOW:
        raise UserError(
            f"images of {height} x {width} pixels: structural similarity needs sides of {WINDOW} "
            "pixels at least; set --image_size."
        )
    return dm_pix.ssim(jnp.clip(images, 0.0, 1.0), true, filter_size=WINDOW)


def measure(restored: Images, given: Images, true: Images) -> Measures:
    """Measures PSNR and SSIM of restored images, and of the given ones."""
    values = {
        "psnr": psnr(restored, true),
        "ssim": ssim(restored, true),
        "psnr_given": psnr(given, true),
        "ssim_given": ssim(given, true),
    }
    return {name: (value, jnp.ones_like(value)) for name, value in values.items()}


PROTOCOL = {
    "psnr": "peak signal-to-noise ratio, dB: mean over images of 10 log10(1 / mean squared error)",
    "ssim": "structural similarity, up to 1; mean over images, Gaussian window of 11 x 11 pixels",
    "psnr_given": "the same of the images that were to be restored",
    "ssim_given": "the same of the images that were to be restored",
}
