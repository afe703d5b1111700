"""How the demo's teacher is trained and its students distilled."""
