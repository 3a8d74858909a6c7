"""Computations on many vectors: nearest neighbours, projections to a plane."""
