"""CLEAR Parallel: one picture on several devices."""

from typing import Any

from comfy_api.latest import io

from ...clear_attention.comfyui.parallel.devices import parse_devices, parse_shares
from ...clear_attention.comfyui.parallel.node import with_parallel
from ..inputs import CATEGORY, found_as, model_input
from ..reported import ReportedNode


class CLEARParallel(ReportedNode):
    """A picture's rows shared out among devices."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLEARParallel",
            display_name="CLEAR Parallel",
            category=CATEGORY,
            **found_as(
                "multi gpu, multiple gpus, two gpus, several gpus, distributed, sequence parallel, "
                "split picture, faster, 8k"
            ),
            description=(
                "Paints one picture on several GPUs of this machine: each computes a part of its "
                "rows. The picture is the same as from one GPU. It is made for large pictures "
                "with a CLEAR window, which the GPUs exchange little for. Each GPU holds the "
                "whole model."
            ),
            inputs=[
                model_input(),
                io.String.Input(
                    "devices",
                    default="all",
                    tooltip=(
                        'GPUs that share the picture: "all", or names such as "cuda:0,cuda:1". '
                        "The first one is always the GPU that ComfyUI samples on. One GPU alone "
                        "changes nothing."
                    ),
                ),
                io.String.Input(
                    "shares",
                    default="auto",
                    tooltip=(
                        'How much of the picture each GPU computes: "2:1" gives the first one two '
                        'thirds. "auto" gives equal GPUs equal parts, and measures unequal ones '
                        "in the first step."
                    ),
                ),
            ],
            outputs=[io.Model.Output()],
            hidden=[io.Hidden.unique_id],
            # The report goes to this very node, not to an equal one that ran before.
            not_idempotent=True,
        )

    @classmethod
    def execute(cls, model: Any, devices: str = "all", shares: str = "auto") -> io.NodeOutput:
        node_id = cls.hidden.unique_id if cls.hidden else None
        chosen = parse_devices(devices)
        return io.NodeOutput(with_parallel(model, chosen, parse_shares(shares, chosen), node_id))
