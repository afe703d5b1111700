"""The demo's picture codec: latents by hand, a decoder by training, a file for ComfyUI."""
