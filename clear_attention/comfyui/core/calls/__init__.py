"""One call of a model: its grid and settings, and what attends within it."""
