"""A MODEL distilled in the host: from the graph or from the command line."""
