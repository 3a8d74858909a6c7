"""Looking into a network, and at what its gradient says of an image: pure functions, one topic a
file.

A network is here a function of images [B, H, W, C] of values 0..255; what it does inside is seen
from outside (network.py), so every model of every experiment can be asked.
"""
