"""Distilled weights and the window that belongs to them, onto a model in one step."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher

from ...pooling import Pooling
from ..core.patch import with_window
from ..core.settings import WindowSettings
from ..families import require_family
from .loaded import load_clear
from .patches import apply_clear


def load_onto(
    model: ModelPatcher,
    clear_name: str,
    strength: float = 1.0,
    radius: int | None = None,
    backend: str = "auto",
    node_id: str | None = None,
    reference: ModelPatcher | None = None,
) -> ModelPatcher:
    """Return a clone of the model with CLEAR weights and their window.

    Args:
        model: A MODEL, left as it is.
        clear_name: A file in models/clear.
        strength: Share of the distilled weights; 0 returns the model itself, window and all.
        radius: Of the window in tokens, None for what the file was distilled for.
        backend: "auto" or the name of a backend.
        node_id: The node that shows the report.
        reference: The MODEL that the file was distilled from, to add the difference to it instead
            of replacing the model's own weights.

    Raises:
        ValueError: The file cannot be used on this model; the message says why.
    """
    require_family(model)
    if strength == 0:
        return model
    clear = load_clear(clear_name, radius)
    pool_weights = {
        block: Pooling(clear.pool_factor, weight) for block, weight in clear.pooling_weights.items()
    }
    local = WindowSettings(
        clear.radius,
        pool_factor=clear.pool_factor,
        pool_weights=pool_weights,
        radii=clear.radii,
        backend=backend,
    )
    return apply_clear(with_window(model, local, node_id), clear, strength, reference)
