"""Models for textures and panoramas: what leaves the picture on one side enters on the other."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher

from ..core.patch import with_settings
from ..core.settings import DIRECTIONS
from ..families import require_family
from .embedder import make_periodic
from .seam_report import follow_call


def make_seamless(
    model: ModelPatcher, direction: str = "both", node_id: str | None = None
) -> ModelPatcher:
    """Return a clone whose pictures have no seam where copies of them meet.

    The window of a CLEAR node before or after wraps around, and rotary positions repeat. Of two
    calls the last one wins.

    Args:
        model: A MODEL, left as it is.
        direction: One of `DIRECTIONS`.
        node_id: The node that shows the report.

    Raises:
        ValueError: The model's architecture is not supported.
    """
    wrap_height, wrap_width = DIRECTIONS[direction]
    model = with_settings(
        model,
        node_id,
        wrap_height=wrap_height,
        wrap_width=wrap_width,
        observer=follow_call,
        about="seamless:",
    )
    embedder = require_family(model).embedder
    if embedder is not None:
        make_periodic(model, embedder, wrap_height=wrap_height, wrap_width=wrap_width)
    return model
