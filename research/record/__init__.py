"""Records of a run: its folder, reports, progress, checksums."""
