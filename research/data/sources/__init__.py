"""Batches as functions of seed and step, from splits with random access."""
