"""Training data: what lies on disk, and what one update sees of it."""
