"""The host's side of each model family: one file each, in one ordered list."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher
from torch import nn

from .aura_flow import AURA_FLOW
from .boogu import BOOGU
from .chroma import CHROMA
from .cosmos_predict2 import COSMOS_PREDICT2
from .embedder import Embedder
from .family import HostBlocks, HostFamily, tokens_of
from .flux import FLUX
from .flux2 import FLUX2
from .hidream import HIDREAM
from .hidream_o1 import HIDREAM_O1
from .hunyuan_image import HUNYUAN_IMAGE
from .hunyuan_video import HUNYUAN_VIDEO
from .ideogram4 import IDEOGRAM4
from .joy_image import JOY_IMAGE
from .kandinsky5 import KANDINSKY5
from .krea2 import KREA2
from .lens import LENS
from .lumina2 import LUMINA2
from .mage_flow import MAGE_FLOW
from .modules import plain_module
from .omnigen2 import OMNIGEN2
from .pixeldit import PIXELDIT
from .qwen_image import QWEN_IMAGE
from .qwen_image21 import QWEN_IMAGE21
from .radiance import RADIANCE
from .sd3 import SD3
from .unsupported import NUNCHAKU, is_nunchaku, why_unsupported
from .wan import WAN
from .wan_5b import WAN_5B
from .z_image import Z_IMAGE

__all__ = [
    "FAMILIES",
    "Embedder",
    "HostBlocks",
    "HostFamily",
    "family_of",
    "plain_module",
    "require_family",
    "titles",
    "tokens_of",
]

FAMILIES: tuple[HostFamily, ...] = (
    FLUX2,  # in front of FLUX, whose class it shares
    FLUX,
    SD3,
    RADIANCE,  # in front of Chroma, from whose class its own derives
    CHROMA,
    Z_IMAGE,  # in front of Lumina2, likewise
    LUMINA2,
    QWEN_IMAGE,
    QWEN_IMAGE21,
    KREA2,
    HIDREAM_O1,
    HUNYUAN_IMAGE,
    HUNYUAN_VIDEO,
    HIDREAM,
    AURA_FLOW,
    COSMOS_PREDICT2,
    KANDINSKY5,
    OMNIGEN2,
    BOOGU,
    IDEOGRAM4,
    LENS,
    MAGE_FLOW,
    JOY_IMAGE,
    PIXELDIT,
    WAN_5B,  # in front of Wan, whose class it shares
    WAN,
)
"""The families whose joint attention CLEAR knows; the first one that matches is taken."""


def family_of(diffusion_model: nn.Module) -> HostFamily | None:
    """Return the family of a diffusion model, compiled or not, or None.

    A refused class may derive from one that is taken, as NextDiTPixelSpace does from Lumina2's, and
    nunchaku's Qwen-Image from the host's.
    """
    plain = plain_module(diffusion_model)
    if why_unsupported(plain) is not None or is_nunchaku(plain):
        return None
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
    if is_nunchaku(plain):
        raise ValueError(NUNCHAKU)
    why = why_unsupported(plain)
    raise ValueError(
        f"CLEAR supports models of the families {titles()}, got {type(plain).__name__}"
        f"{f': {why}' if why else ''}. Remove the CLEAR node from this model, or ask for the model "
        "as docs/models.md says."
    )


def titles() -> str:
    """Return the names of all families, for messages."""
    return ", ".join(family.title for family in FAMILIES)
