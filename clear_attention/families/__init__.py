"""Model families as data, without the host: one file each, in one ordered list."""

from __future__ import annotations

from .aura_flow import AURA_FLOW
from .boogu import BOOGU
from .chroma import CHROMA
from .cosmos_predict2 import COSMOS_PREDICT2
from .family import Family
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
from .omnigen2 import OMNIGEN2
from .pixeldit import PIXELDIT
from .qwen_image import QWEN_IMAGE
from .qwen_image21 import QWEN_IMAGE21
from .radiance import RADIANCE
from .sd3 import SD3
from .wan import WAN
from .wan_5b import WAN_5B
from .z_image import Z_IMAGE

FAMILIES: tuple[Family, ...] = (
    FLUX2,
    FLUX,
    SD3,
    RADIANCE,
    CHROMA,
    Z_IMAGE,
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
    WAN_5B,
    WAN,
)
"""A checkpoint without a family in its metadata is taken for the first one that it fits."""

DEFAULT = FLUX
"""The family whose sizes count where no model is given, as in the window preview."""
