"""Data sets by name, and deterministic batches of their examples."""
