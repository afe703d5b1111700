"""What one update does to the weights: gradients, optimisers, the running average."""
