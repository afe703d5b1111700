"""Where the narrow VAE stands: its file, its node, and the node in workflows."""

from __future__ import annotations

from typing import Any

LOADER = "CLEARTestVAELoader"
FILE = "narrow_vae.safetensors"
"""In the folder of models, where ComfyUI's own loader does not list it."""


def with_narrow_vae(workflow: dict[str, Any]) -> dict[str, Any]:
    """Let a workflow load the narrow VAE; it is changed, and returned."""
    for node in workflow["nodes"]:
        if node["type"] == "VAELoader":
            node["type"] = LOADER
            node["properties"] = {"Node name for S&R": LOADER}
    return workflow
