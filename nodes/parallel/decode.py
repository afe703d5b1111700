"""CLEAR Parallel Decode: the tiles of a tiled VAE decode on several devices."""

from typing import Any

from comfy_api.latest import io

from ...clear_attention.comfyui.parallel.decode import decode_in_tiles
from ...clear_attention.comfyui.parallel.devices import parse_devices
from ..inputs import CATEGORY, found_as


class CLEARParallelDecode(io.ComfyNode):
    """Tiles dealt to devices."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLEARParallelDecode",
            display_name="CLEAR Parallel Decode",
            category=CATEGORY,
            **found_as("multi gpu, several gpus, tiled vae decode, vae decode tiled, faster, 8k"),
            description=(
                "Decodes a latent in tiles on several GPUs of this machine: each takes the next "
                "tile when it is done with one. The picture is that of VAE Decode (Tiled). Each "
                "GPU holds the whole VAE."
            ),
            inputs=[
                io.Latent.Input("samples", tooltip="The latent of a picture or of a video."),
                io.Vae.Input("vae", tooltip="The model's VAE."),
                io.String.Input(
                    "devices",
                    default="all",
                    tooltip=(
                        'GPUs that share the tiles: "all", or names such as "cuda:0,cuda:1". The '
                        "first one is always the GPU that ComfyUI decodes on. One GPU alone is "
                        "VAE Decode (Tiled)."
                    ),
                ),
                io.Int.Input(
                    "tile_size",
                    default=512,
                    min=64,
                    max=4096,
                    step=32,
                    tooltip=(
                        "Edge of a tile in pixels. Smaller ones need less memory and differ more "
                        "from a decode without tiles."
                    ),
                ),
                io.Int.Input(
                    "overlap",
                    default=64,
                    min=0,
                    max=4096,
                    step=32,
                    tooltip=(
                        "Pixels over which a tile fades into the next one; a quarter of a tile at "
                        "most. 0 leaves visible edges."
                    ),
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(
        cls,
        samples: dict[str, Any],
        vae: Any,
        devices: str = "all",
        tile_size: int = 512,
        overlap: int = 64,
    ) -> io.NodeOutput:
        return io.NodeOutput(
            decode_in_tiles(vae, samples, parse_devices(devices), tile_size, overlap)
        )
