"""The pack inside ComfyUI: the only part that imports the host."""
