"""CLEAR attention: exact local attention for pre-trained diffusion transformers.

The library needs torch only; everything that touches ComfyUI lives in
`clear_attention.comfyui`.
"""

from .api import attention
from .layout import TokenLayout
from .pooling import Pooling
from .scale import proportional_scale
from .window import Window

__all__ = ["Pooling", "TokenLayout", "Window", "attention", "proportional_scale"]
