"""Whether a model call covers the whole picture: only then can its edges meet."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..settings import Settings

PICTURE_KEY = "clear_attention_picture"
"""Where the latent height and width of the sampled picture lie in transformer_options."""


def size_of(latent: Tensor) -> tuple[int, int]:
    """Return the height and width of ``[..., height, width]``."""
    return latent.shape[-2], latent.shape[-1]


def settings_of_part(settings: Settings, latent: Tensor, options: Mapping[str, Any]) -> Settings:
    """Return the settings of one call: a side of which it sees a part only does not wrap around.

    Areas of the prompt, tiles and context windows are such parts: their edges lie within the
    picture. Outside of a sampling run every call is a whole picture.

    Args:
        settings: What the nodes ask for.
        latent: ``[..., height, width]``, of the call.
        options: Of the call.
    """
    size = size_of(latent)
    height, width = options.get(PICTURE_KEY, size)
    return dataclasses.replace(
        settings,
        wrap_height=settings.wrap_height and size[0] == height,
        wrap_width=settings.wrap_width and size[1] == width,
    )
