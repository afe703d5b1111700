"""The command that joins a machine to a cluster."""
