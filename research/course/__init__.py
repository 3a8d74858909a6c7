"""Worked examples of a course on convolutional networks: small arrays, step by step.

An example is added to `examples.EXAMPLES`, with its function in a file of this folder.
"""
