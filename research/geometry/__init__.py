"""Boxes: formats, overlap, suppression, anchors, and their assignment to predictions."""
