"""What ComfyUI's page shows of this pack: screenshots, and the way to a first picture."""
