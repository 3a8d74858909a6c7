"""Detectors: one family a file, each a model, a loss and a prediction; see `detector`."""
