"""The host's Wan 2.2 5B: Wan's class, told apart by the channels of its latents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...families.wan_5b import WAN_5B as DATA
from ..families import wan

CHANNELS = 48


def _matches(model: Any) -> bool:
    return wan.WAN.matches(model) and model.patch_embedding.in_channels >= CHANNELS


WAN_5B = replace(wan.WAN, data=DATA, matches=_matches)
