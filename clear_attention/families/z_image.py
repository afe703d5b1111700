"""Z-Image: Lumina2's blocks, an image that is filled up to a multiple of 32 tokens."""

from __future__ import annotations

from dataclasses import replace

from ..families import lumina2

Z_IMAGE = replace(lumina2.LUMINA2, key="z_image", title="Z-Image", pads_to=32)
