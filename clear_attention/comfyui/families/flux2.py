"""The host's FLUX.2: FLUX's class, with one modulation for all blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...families.flux2 import FLUX2 as DATA
from ..families import flux


def _matches(model: Any) -> bool:
    """Return whether a model is FLUX.2, which hosts tell from FLUX.1 by its modulation alone."""
    return flux.FLUX.matches(model) and getattr(model.params, "global_modulation", False)


# Position ids are those of picture, row, column and, as a fourth, word: FLUX's axes and one more.
FLUX2 = replace(flux.FLUX, data=DATA, matches=_matches)
