"""Loaders with the sockets and widgets of ComfyUI's own: a workflow needs new node types only."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .control import DemoControlNetLoader
from .network import load_model
from .text import DemoCLIP

CATEGORY = "CLEAR demo"
NO_EFFECT = "Has no effect; it is there because ComfyUI's loader has it."


class DemoUNETLoader(io.ComfyNode):
    """Load the demo's diffusion model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="CLEARDemoUNETLoader",
            display_name="Load Demo Diffusion Model",
            category=CATEGORY,
            description="A tiny FLUX that knows six photographs, to try things with.",
            inputs=[
                io.String.Input("unet_name", default="demo", tooltip=NO_EFFECT),
                io.String.Input("weight_dtype", default="default", tooltip=NO_EFFECT),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, **_: str) -> io.NodeOutput:
        """Load the model."""
        return io.NodeOutput(load_model())


class DemoDualCLIPLoader(io.ComfyNode):
    """Make the demo's text encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="CLEARDemoDualCLIPLoader",
            display_name="Load Demo Text Encoder",
            category=CATEGORY,
            description="Gives every word a fixed random direction.",
            inputs=[
                io.String.Input("clip_name1", default="demo", tooltip=NO_EFFECT),
                io.String.Input("clip_name2", default="demo", tooltip=NO_EFFECT),
                io.String.Input("type", default="flux", tooltip=NO_EFFECT),
                io.String.Input("device", default="default", optional=True, tooltip=NO_EFFECT),
            ],
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def execute(cls, **_: str) -> io.NodeOutput:
        """Make the encoder."""
        return io.NodeOutput(DemoCLIP())


class DemoExtension(ComfyExtension):
    """The demo's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """List them."""
        return [DemoUNETLoader, DemoDualCLIPLoader, DemoControlNetLoader]
