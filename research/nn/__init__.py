"""Building blocks that the models share: one topic a file."""
