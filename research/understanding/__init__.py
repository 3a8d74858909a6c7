"""Looking inside networks: what they do, and why they say what they say.

Where images are asked about, a network is a function of images [B, H, W, C] of values 0..255; what
it does inside is seen from outside (network.py), so every model of every experiment can be asked.
"""
