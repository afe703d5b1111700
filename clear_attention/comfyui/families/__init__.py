"""The host's side of each model family."""
