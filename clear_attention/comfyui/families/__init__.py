"""The host's side of each model family: one file each, in one ordered list."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher
from torch import nn

from .chroma import CHROMA
from .family import Embedder, HostBlocks, HostFamily, plain_module
from .flux import FLUX
from .flux2 import FLUX2
from .sd3 import SD3

__all__ = [
    "FAMILIES",
    "Embedder",
    "HostBlocks",
    "HostFamily",
    "family_of",
    "plain_module",
    "require_family",
    "titles",
]

FAMILIES: tuple[HostFamily, ...] = (
    FLUX2,  # in front of FLUX, whose class it shares
    FLUX,
    SD3,
    CHROMA,
)
"""The families whose joint attention CLEAR knows; the first one that matches is taken."""


def family_of(diffusion_model: nn.Module) -> HostFamily | None:
    """Return the family of a diffusion model, compiled or not, or None."""
    plain = plain_module(diffusion_model)
    return next((family for family in FAMILIES if family.matches(plain)), None)


def require_family(model: ModelPatcher) -> HostFamily:
    """Return the family of a MODEL.

    Raises:
        ValueError: CLEAR does not know its architecture; the message says what to do.
    """
    diffusion_model = model.get_model_object("diffusion_model")
    family = family_of(diffusion_model)
    if family is not None:
        return family
    plain = plain_module(diffusion_model)
    if _is_nunchaku(plain):
        raise ValueError(
            "CLEAR cannot be combined with nunchaku models: their attention runs inside nunchaku's "
            "own engine. Load the bf16, fp8 or GGUF version of the model instead."
        )
    raise ValueError(
        f"CLEAR supports models of the families {titles()}, got {type(plain).__name__}. "
        "Remove the CLEAR node from this model."
    )


def titles() -> str:
    """Return the names of all families, for messages."""
    return ", ".join(family.title for family in FAMILIES)


def _is_nunchaku(module: nn.Module) -> bool:
    """Tell by names, without importing it; its FLUX is a wrapper around a module of its own."""
    types = [type(one) for one in (module, *module.children())]
    return any("nunchaku" in f"{one.__module__}.{one.__name__}".lower() for one in types)
