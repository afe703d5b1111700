"""Blocks computed in slices, and what the host is told of their memory."""
