"""From pixels to latents and back."""
