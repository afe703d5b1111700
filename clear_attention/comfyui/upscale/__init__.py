"""A picture enlarged in stages."""
