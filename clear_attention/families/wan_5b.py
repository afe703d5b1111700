"""Wan 2.2 5B: Wan with latent pixels of 16 pixels."""

from __future__ import annotations

from dataclasses import replace

from ..families import wan

WAN_5B = replace(
    wan.WAN,
    key="wan_5b",
    title="Wan 2.2 5B",
    models="Wan 2.2 5B text to video, one frame",
    latent_px=16,
)
