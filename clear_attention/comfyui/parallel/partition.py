"""Who computes which rows of a model call, from its grid and what the nodes ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...parallel.partition import Partition, share_out
from ..core.geometry import Geometry
from ..core.patch import SETTINGS_KEY
from ..core.settings import Settings


def partition_of(
    geometry: Geometry, shares: Sequence[float], options: Mapping[str, Any]
) -> Partition | str:
    """Return who computes what, or why one device computes all of it.

    Args:
        geometry: Of the call.
        shares: Of the ranks.
        options: The transformer_options of the call.
    """
    if geometry.frames > 1:
        return f"{geometry.frames} frames"
    settings: Settings = options[SETTINGS_KEY]
    multiple = max(1, settings.local.pool_factor) if settings.local is not None else 1
    references = range(0)
    if geometry.references:
        references = range(geometry.padding, geometry.padding + geometry.references)
    try:
        return share_out(
            geometry.height, geometry.width, shares, multiple=multiple, extra=references
        )
    except ValueError as error:
        return str(error)
