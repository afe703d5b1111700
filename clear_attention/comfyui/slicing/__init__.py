"""Blocks of the host's classes, with everything but the attention computed slice by slice."""
