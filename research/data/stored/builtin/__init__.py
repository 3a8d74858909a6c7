"""Data sets that ship inside Python packages, one TFDS builder a file; no list to keep.

A new file holds one `tfds.core.GeneratorBasedBuilder` whose name is that of the file; it makes its
examples from what is installed, without network.
"""
