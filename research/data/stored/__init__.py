"""Data sets that are stored once, in the form of TFDS: built in, or from original archives."""
