"""CLEAR Low Memory: large pictures on small cards."""

from typing import Any

from comfy_api.latest import io

from ..clear_attention.comfyui.memory.blocks import with_low_memory
from .inputs import CATEGORY, found_as, model_input
from .reported import ReportedNode


class CLEARLowMemory(ReportedNode):
    """Blocks in slices of tokens."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLEARLowMemory",
            display_name="CLEAR Low Memory",
            category=CATEGORY,
            **found_as(
                "low vram, vram, out of memory, oom, cuda out of memory, save memory, 8 gb, "
                "12 gb, slices"
            ),
            description=(
                "Computes a model's linear layers for some tokens at a time, so that pictures of "
                "4096 x 4096 pixels and more need far less memory. The result is the same. Put it "
                "behind a CLEAR node, whose window also lets ComfyUI know how little is needed."
            ),
            inputs=[
                model_input(),
                io.Int.Input(
                    "slice_tokens",
                    default=0,
                    min=0,
                    max=1 << 24,
                    step=256,
                    tooltip=(
                        "Tokens of 16 x 16 pixels that the linear layers take at a time. Fewer "
                        "need less memory; below about 1024 a GPU may take longer. 0 takes a "
                        "sixteenth of the picture, and leaves pictures below 1448 x 1448 whole; a "
                        "number above the picture's tokens changes nothing."
                    ),
                ),
            ],
            outputs=[io.Model.Output()],
            hidden=[io.Hidden.unique_id],
            # The report goes to this very node, not to an equal one that ran before.
            not_idempotent=True,
        )

    @classmethod
    def execute(cls, model: Any, slice_tokens: int = 0) -> io.NodeOutput:
        node_id = cls.hidden.unique_id if cls.hidden else None
        return io.NodeOutput(with_low_memory(model, slice_tokens, node_id))
