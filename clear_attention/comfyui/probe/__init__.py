"""What the attention of a model sees: measured, or drawn over a picture."""
