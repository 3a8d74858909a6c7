"""Flattens maps into vectors for a dense layer."""

from jaxtyping import Array, Float


def flatten(
    maps: Float[Array, "batch height width channel"],
) -> Float[Array, "batch height*width*channel"]:
    """Returns a vector for each example, channel by channel: the order in which PyTorch flattens.

    Dense layers after it then take PyTorch's weights by transposition alone, for any map size.
    """
    return maps.transpose(0, 3, 1, 2).reshape(len(maps), -1)
