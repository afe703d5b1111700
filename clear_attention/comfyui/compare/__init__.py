"""A model with CLEAR beside the same without it: pictures, errors, seconds."""
