"""Boxes: formats, overlap, suppression, anchors, and which box a prediction answers for."""
