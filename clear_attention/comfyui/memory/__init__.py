"""Blocks computed in slices, and the estimate of their memory for the host."""
