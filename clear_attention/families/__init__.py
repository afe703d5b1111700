"""Model families as data, without the host: one file each, in one ordered list."""

from __future__ import annotations

from .chroma import CHROMA
from .family import Family
from .flux import FLUX
from .flux2 import FLUX2
from .sd3 import SD3

FAMILIES: tuple[Family, ...] = (
    FLUX2,
    FLUX,
    SD3,
    CHROMA,
)
"""A checkpoint without a family in its metadata is taken for the first one that it fits."""

DEFAULT = FLUX
"""The family whose sizes count where no model is given, as in the window preview."""
