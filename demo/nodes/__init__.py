"""CLEAR demo: loaders for a tiny model in the FLUX architecture, for demo and tests only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension


async def comfy_entrypoint() -> ComfyExtension:
    """Give ComfyUI the nodes. Imported here: the demo's files are read without ComfyUI, too."""
    from .loaders import DemoExtension

    return DemoExtension()
