"""Sentences and characters as numbers."""
