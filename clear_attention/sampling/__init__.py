"""Cascades of picture sizes: which sizes, steps, guidance and scales. Pure numbers."""
