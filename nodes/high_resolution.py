"""CLEAR High Resolution: positions and softmax scale for pictures beyond the trained size."""

from typing import Any

from comfy_api.latest import io

from ..clear_attention.comfyui.positions.high_resolution import for_high_resolution
from .inputs import CATEGORY, found_as, model_input
from .reported import ReportedNode


class CLEARHighRes(ReportedNode):
    """NTK positions and proportional attention."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLEARHighRes",
            display_name="CLEAR High Resolution",
            category=CATEGORY,
            **found_as(
                "ntk, rope scaling, extrapolation, hires, hires fix, large pictures, 2k, 4k, "
                "8k, dype"
            ),
            description=(
                "Prepares a model for pictures larger than it was trained on: scales the base of "
                "the rotary positions and lets the softmax scale grow with the number of tokens."
            ),
            inputs=[
                model_input(),
                io.Float.Input(
                    "ntk_factor",
                    default=10.0,
                    min=0.1,
                    max=100.0,
                    step=0.1,
                    tooltip=(
                        "Factor on the base of the rotary positions. 10 is the CLEAR authors' "
                        "value; 1 changes nothing, and is the only one for SD3, which has none."
                    ),
                ),
                io.Boolean.Input(
                    "proportional_attention",
                    default=True,
                    tooltip=(
                        "Lets the softmax scale grow with the logarithm of the number of tokens, "
                        "so that large pictures stay sharp. Off changes nothing."
                    ),
                ),
            ],
            outputs=[io.Model.Output()],
            hidden=[io.Hidden.unique_id],
            # The report goes to this very node, not to an equal one that ran before.
            not_idempotent=True,
        )

    @classmethod
    def execute(
        cls, model: Any, ntk_factor: float = 10.0, proportional_attention: bool = True
    ) -> io.NodeOutput:
        node_id = cls.hidden.unique_id if cls.hidden else None
        return io.NodeOutput(
            for_high_resolution(model, ntk_factor, proportional_attention, node_id)
        )
