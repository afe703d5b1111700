"""A loader with the socket and the widget of ComfyUI's own, which gives the narrow VAE."""

from __future__ import annotations

from pathlib import Path

import comfy.sd
import comfy.utils
import folder_paths
from comfy_api.latest import ComfyExtension, io

from .network import narrowed
from .places import FILE, LOADER


class NarrowVAELoader(io.ComfyNode):
    """Load a VAE of TAESD's form, and give it the narrow networks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id=LOADER,
            display_name="Load Narrow VAE",
            category="CLEAR tests",
            inputs=[io.Combo.Input("vae_name", options=folder_paths.get_filename_list("vae"))],
            outputs=[io.Vae.Output()],
        )

    @classmethod
    def execute(cls, vae_name: str) -> io.NodeOutput:
        """Load it."""
        wide = comfy.utils.load_torch_file(folder_paths.get_full_path_or_raise("vae", vae_name))
        narrow = comfy.utils.load_torch_file(str(Path(folder_paths.models_dir) / FILE))
        return io.NodeOutput(narrowed(comfy.sd.VAE(sd=wide), narrow))


class NarrowExtension(ComfyExtension):
    """The node."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """List it."""
        return [NarrowVAELoader]
