"""The small model that runs without downloads; see README.md in this folder."""
