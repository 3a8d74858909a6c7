"""Images and what is done to them: read, resized, normalised, augmented; their boxes and masks."""
