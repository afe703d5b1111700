"""CLEAR attention: exact local attention for pre-trained diffusion transformers.

The library needs torch only; everything that touches ComfyUI lives in
`clear_attention.comfyui`.
"""

from .api import attention
from .layout import TokenLayout
from .masks import Mask, read_mask
from .pooling import Pooling
from .queries import Queries
from .scale import proportional_scale
from .window import Window

__all__ = [
    "Mask",
    "Pooling",
    "Queries",
    "TokenLayout",
    "Window",
    "attention",
    "proportional_scale",
    "read_mask",
]
