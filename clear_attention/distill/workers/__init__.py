"""The processes that share one run, and how they share the student."""
