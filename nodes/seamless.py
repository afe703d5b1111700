"""CLEAR Seamless and its decoder: textures and panoramas without a seam."""

from typing import Any

from comfy_api.latest import io

from ..clear_attention.comfyui.core.settings import DIRECTIONS
from ..clear_attention.comfyui.positions.seamless import make_seamless
from ..clear_attention.comfyui.vae.seamless import decode_seamless
from .inputs import ADVANCED, CATEGORY, found_as, model_input
from .reported import ReportedNode


class CLEARSeamless(ReportedNode):
    """A model whose pictures wrap around."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLEARSeamless",
            display_name="CLEAR Seamless",
            category=CATEGORY,
            **found_as(
                "tileable, tiling, tile texture, seamless texture, repeating pattern, "
                "wallpaper, panorama, 360, wrap around"
            ),
            description=(
                "Makes the model paint textures and panoramas that can be laid side by side "
                "without a seam: CLEAR's window wraps around, and so do the positions. Works with "
                "any CLEAR node before or after it, and without one. Decode with CLEAR Seamless "
                "Decode."
            ),
            inputs=[
                model_input(),
                _direction_input("A model needs no node to have edges: bypass."),
            ],
            outputs=[io.Model.Output()],
            hidden=[io.Hidden.unique_id],
            # The report goes to this very node, not to an equal one that ran before.
            not_idempotent=True,
        )

    @classmethod
    def execute(cls, model: Any, direction: str = "both") -> io.NodeOutput:
        return io.NodeOutput(
            make_seamless(model, direction, cls.hidden.unique_id if cls.hidden else None)
        )


class CLEARSeamlessDecode(io.ComfyNode):
    """A VAE's decoder that wraps around."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLEARSeamlessDecode",
            display_name="CLEAR Seamless Decode",
            category=CATEGORY,
            **found_as(
                "tileable, tiling, seamless texture, seamless decode, vae decode seamless, "
                "circular vae"
            ),
            description=(
                "Decodes a latent of CLEAR Seamless. ComfyUI's own decode would put the seam back: "
                "a VAE does not know that the picture goes on beyond its edges."
            ),
            inputs=[
                io.Latent.Input("samples", tooltip="The latent of a seamless picture."),
                io.Vae.Input("vae", tooltip="The model's VAE."),
                _direction_input("Edges that do not wrap are decoded as ever."),
                io.Int.Input(
                    "tile_size",
                    default=2048,
                    min=0,
                    max=8192,
                    step=64,
                    tooltip=(
                        "Pictures that are larger, with their margin of 192 pixels at each wrapped "
                        "edge, are decoded in overlapping tiles of this many pixels. Smaller ones "
                        "need less memory; 0 never tiles."
                    ),
                    **ADVANCED,
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(
        cls, samples: dict[str, Any], vae: Any, direction: str = "both", tile_size: int = 2048
    ) -> io.NodeOutput:
        return io.NodeOutput(decode_seamless(vae, samples["samples"], direction, tile_size))


def _direction_input(neutral: str) -> io.Combo.Input:
    return io.Combo.Input(
        "direction",
        options=list(DIRECTIONS),
        default="both",
        tooltip=(
            "Which edges meet: both for textures, horizontal (left and right) for panoramas, "
            f"vertical (top and bottom). {neutral}"
        ),
    )
