"""The host's Hunyuan Video."""

from __future__ import annotations

from dataclasses import replace

from ...families.hunyuan_video import HUNYUAN_VIDEO as DATA
from ..families import hunyuan_image

HUNYUAN_VIDEO = replace(hunyuan_image.HUNYUAN_IMAGE, data=DATA, matches=hunyuan_image.is_hunyuan)
