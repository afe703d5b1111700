"""The plan of a MODEL, on this machine, for this run."""
