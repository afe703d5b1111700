"""CLEAR Window Preview: what a token of a picture sees, drawn over the picture."""

from typing import Any

from comfy_api.latest import io

from ...clear_attention.comfyui.core.settings import DIRECTIONS
from ...clear_attention.comfyui.probe.window_preview import NOWHERE, TOKEN_PX, preview_window
from ..inputs import ADVANCED, MEASURING, SLIDER, found_as, radius_input


class CLEARWindowPreview(io.ComfyNode):
    """The disc, its halo and the pooled grid at true scale."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLEARWindowPreview",
            display_name="CLEAR Window Preview",
            category=MEASURING,
            **found_as("attention window, show window, radius, debug attention"),
            description=(
                "Draws over a picture what one of its tokens sees with CLEAR, at true scale: the "
                "disc, the tokens that are loaded for it, and the pooled grid. Use it to choose a "
                "radius by eye; no model is needed."
            ),
            inputs=[
                radius_input(
                    "Radius of the window in tokens, see token_px. One larger than the "
                    "picture's diagonal sees everything."
                ),
                io.Int.Input(
                    "pool_factor",
                    default=0,
                    min=0,
                    max=32,
                    tooltip=(
                        "Draws the grid of the pooled branch, whose cells every token sees. 0 and "
                        "1 draw none."
                    ),
                ),
                io.Float.Input(
                    "x",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    display_mode=SLIDER,
                    tooltip="Where the token lies, from 0 (left) to 1 (right). 0.5 is the middle.",
                ),
                io.Float.Input(
                    "y",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    display_mode=SLIDER,
                    tooltip="Where the token lies, from 0 (top) to 1 (bottom). 0.5 is the middle.",
                ),
                io.Int.Input(
                    "width",
                    default=1024,
                    min=16,
                    max=16384,
                    step=8,
                    tooltip="Width in pixels of the empty picture. An image counts instead of it.",
                ),
                io.Int.Input(
                    "height",
                    default=1024,
                    min=16,
                    max=16384,
                    step=8,
                    tooltip="Height in pixels of the empty picture. An image counts instead of it.",
                ),
                io.Combo.Input(
                    "direction",
                    options=[NOWHERE, *DIRECTIONS],
                    default=NOWHERE,
                    tooltip=(
                        "Which edges meet with CLEAR Seamless, where the window goes on at the "
                        "other side. none for pictures without it."
                    ),
                ),
                io.Int.Input(
                    "token_px",
                    default=TOKEN_PX,
                    min=8,
                    max=64,
                    step=8,
                    tooltip=(
                        "Edge of a token in pixels. Nearly all models have 16; Hunyuan Image 2.1 "
                        "and HiDream-O1 have 32."
                    ),
                    **ADVANCED,
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The picture to draw on. Without one an empty grid of tokens is drawn.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="preview", tooltip="The picture with the window."),
                io.String.Output(
                    display_name="text", tooltip="How many tokens are seen and loaded."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        radius: int = 16,
        pool_factor: int = 0,
        x: float = 0.5,
        y: float = 0.5,
        width: int = 1024,
        height: int = 1024,
        direction: str = NOWHERE,
        token_px: int = TOKEN_PX,
        image: Any = None,
    ) -> io.NodeOutput:
        return io.NodeOutput(
            *preview_window(
                image,
                (height, width),
                radius=radius,
                pool_factor=pool_factor,
                x=x,
                y=y,
                wraps=direction,
                token_px=token_px,
            )
        )
