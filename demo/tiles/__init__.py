"""One picture enlarged in tiles, with CLEAR and with full attention, side by side."""
