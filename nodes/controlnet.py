"""CLEAR ControlNet: the window for a ControlNet's own blocks."""

from typing import Any

from comfy_api.latest import io

from ..clear_attention.comfyui.controlnet.node import with_local_attention
from ..clear_attention.comfyui.controlnet.settings import ControlSettings
from .inputs import ADVANCED, CATEGORY, backend_input, found_as, radius_input
from .reported import ReportedNode


class CLEARControlNet(ReportedNode):
    """Local attention in ControlNets."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLEARControlNet",
            display_name="CLEAR ControlNet",
            category=CATEGORY,
            **found_as(
                "controlnet 4k, controlnet 8k, faster controlnet, slow controlnet, local "
                "attention, upscale with controlnet"
            ),
            description=(
                "Limits the attention inside a ControlNet of FLUX, SD3 or Qwen-Image to a circular "
                "window, as the other nodes do for the model: without it, the ControlNet alone "
                "would take longer than all of the model on large pictures. Put it behind the "
                "loader."
            ),
            inputs=[
                io.ControlNet.Input(
                    "control_net",
                    tooltip="The ControlNet. It stays as it is; a copy with a window is returned.",
                ),
                radius_input(
                    "Radius of the window in tokens of 16 pixels. 0 takes the window, and the "
                    "steps at which it works, of the model that is sampled. One larger than "
                    "the picture changes nothing.",
                    or_zero=True,
                ),
                io.Int.Input(
                    "every",
                    default=1,
                    min=1,
                    max=16,
                    tooltip=(
                        "Runs the ControlNet on the first of every so many steps, and keeps what "
                        "it said for the others: faster, less exact, and what is kept takes "
                        "memory. 1 runs it on each step."
                    ),
                ),
                io.Float.Input(
                    "ntk_factor",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip=(
                        "Factor on the base of the ControlNet's rotary positions. 0 takes what "
                        "CLEAR High Resolution has set for the model; 1 changes nothing, and SD3 "
                        "has none."
                    ),
                    **ADVANCED,
                ),
                backend_input(),
            ],
            outputs=[io.ControlNet.Output()],
            hidden=[io.Hidden.unique_id],
            # The report goes to this very node, not to an equal one that ran before.
            not_idempotent=True,
        )

    @classmethod
    def execute(
        cls,
        control_net: Any,
        radius: int = 0,
        every: int = 1,
        ntk_factor: float = 0.0,
        backend: str = "auto",
    ) -> io.NodeOutput:
        node_id = cls.hidden.unique_id if cls.hidden else None
        settings = ControlSettings(radius, every, ntk_factor, backend, node_id)
        return io.NodeOutput(with_local_attention(control_net, settings))
