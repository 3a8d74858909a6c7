"""How near a restored image is to the true one."""

import dm_pix
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.experiment import Measures

Images = Float[Array, "batch height width channel"]


def psnr(images: Images, true: Images) -> Float[Array, " batch"]:
    """Peak signal-to-noise ratio of each image, dB: 10 log10(1 / mean squared error).

    Args:
      images, true: values in 0..1; those of `images` that lie outside are cut off.
    """
    error = jnp.square(jnp.clip(images, 0.0, 1.0) - true).mean((1, 2, 3))
    return -10.0 * jnp.log10(jnp.maximum(error, 1e-10))  # 100 dB where they are equal


def ssim(images: Images, true: Images) -> Float[Array, " batch"]:
    """Structural similarity of each image, up to 1: Wang et al., "Image quality assessment", 2004.

    In a Gaussian window of 11 x 11 pixels with deviation 1.5, so sides are 11 pixels at least.
    """
    return dm_pix.ssim(jnp.clip(images, 0.0, 1.0), true)


def measure(restored: Images, given: Images, true: Images) -> Measures:
    """Both, of restored images and of what they were restored from."""
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
