"""Chroma: blocks and names are FLUX's, other weights; nothing takes a pooled text vector."""

from __future__ import annotations

from dataclasses import replace

from ..families import flux

CHROMA = replace(
    flux.FLUX,
    key="chroma",
    title="Chroma",
    models="Chroma1-HD, -Base, -Flash",
    names=replace(flux.NAMES, family="chroma", title="Chroma"),
)
