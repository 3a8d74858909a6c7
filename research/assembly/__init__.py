"""The parts that most experiments share: data and facts, the network, its training.

An experiment composes these parts (see `research.experiment`) and writes itself only what is its
own: its loss, its metrics, its pictures.
"""

from research.assembly.defaults import MOST_PLACES, taken
from research.assembly.images import ImageData, assemble
from research.assembly.network import bind, bind_images
from research.assembly.training import Learned, make_training

__all__ = [
    "MOST_PLACES",
    "ImageData",
    "Learned",
    "assemble",
    "bind",
    "bind_images",
    "make_training",
    "taken",
]
