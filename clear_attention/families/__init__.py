"""Model families as data, without the host: names of weights and dimensions."""
