"""The host's Z-Image: Lumina2's class, told apart by what it fills the image up to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...families.z_image import Z_IMAGE as DATA
from ..families import lumina2
from .cut import Cut


def _matches(model: Any) -> bool:
    return lumina2.LUMINA2.matches(model) and model.pad_tokens_multiple == DATA.pads_to


Z_IMAGE = replace(
    lumina2.LUMINA2,
    data=DATA,
    matches=_matches,
    cut=Cut(
        joined="final_layer",
        first={"x": 1},
        blocks={"freqs_cis": 1},
        places=("timestep_zero_index",),
    ),
)
