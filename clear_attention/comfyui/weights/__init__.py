"""CLEAR checkpoints on a MODEL: patches, the model's own weights, LoRA hooks."""
