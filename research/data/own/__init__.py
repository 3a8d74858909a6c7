"""A person's own files, in the formats that people and tools write them in."""
