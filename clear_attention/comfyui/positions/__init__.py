"""Positional embedding: longer, or repeating around the picture."""
