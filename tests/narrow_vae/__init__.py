"""A node pack of the tests' server: a VAE of the demo's latents that takes little time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension


async def comfy_entrypoint() -> ComfyExtension:
    """Give ComfyUI the node. Imported here: tests read the rest without ComfyUI, too."""
    from .loader import NarrowExtension

    return NarrowExtension()
