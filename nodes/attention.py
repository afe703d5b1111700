"""CLEAR Attention (no weights): the window on any supported model, training-free."""

from typing import Any

from comfy_api.latest import io

from ..clear_attention.comfyui.core.patch import with_window
from ..clear_attention.comfyui.core.settings import WindowSettings
from ..clear_attention.comfyui.plan.benefit import with_estimate
from ..clear_attention.families.block_text import parse_blocks, parse_radii
from .inputs import ADVANCED, CATEGORY, SLIDER, backend_input, found_as, model_input, radius_input
from .reported import ReportedNode


class CLEARAttention(ReportedNode):
    """Local attention without distilled weights."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLEARAttention",
            display_name="CLEAR Attention (no weights)",
            category=CATEGORY,
            **found_as(
                "local attention, sparse attention, linear attention, window attention, "
                "sliding window, faster attention, attention without training, speed up, 2k, "
                "4k, 8k"
            ),
            description=(
                "Limits the attention of every image token to a circular window, which makes it "
                "linear in the picture's pixels. Works without distilled weights; large radii and "
                "a late start keep the picture close to the original."
            ),
            inputs=[
                model_input(),
                radius_input(
                    "Radius of the window in tokens of 16 pixels (32 for HiDream-O1 and Hunyuan "
                    "Image). Smaller is faster, larger is closer to full attention; one larger "
                    "than the picture changes nothing."
                ),
                io.Int.Input(
                    "pool_factor",
                    default=0,
                    min=0,
                    max=32,
                    tooltip=(
                        "Lets every image token also see a copy of the picture that is coarser by "
                        "this factor. It costs work quadratic in the pixels. 0 and 1 switch it off."
                    ),
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    display_mode=SLIDER,
                    tooltip=(
                        "Share of the sampling schedule before which attention stays full. 0 is "
                        "from the start."
                    ),
                    **ADVANCED,
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    display_mode=SLIDER,
                    tooltip=(
                        "Share of the sampling schedule after which attention is full again. 1 is "
                        "to the end."
                    ),
                    **ADVANCED,
                ),
                io.String.Input(
                    "dense_blocks",
                    default="",
                    tooltip=(
                        'Transformer blocks that keep full attention, such as "double 0-3, '
                        'single 37" for FLUX, "joint 0-3" for Qwen-Image, Z-Image and SD3. A wrong '
                        "name is answered with those that the model has. Empty means none."
                    ),
                    **ADVANCED,
                ),
                io.Int.Input(
                    "min_tokens",
                    default=0,
                    min=0,
                    max=1 << 24,
                    step=256,
                    tooltip=(
                        "Pictures with fewer image tokens (mostly width x height / 256) keep full "
                        "attention. 0 means none do; 4096 leaves pictures below 1024 x 1024 alone."
                    ),
                    **ADVANCED,
                ),
                backend_input(),
                io.String.Input(
                    "radii",
                    default="",
                    optional=True,
                    tooltip=(
                        'A radius per block in place of the one above, such as "double 0-3: 8, '
                        'single 0: 32": the output radii of CLEAR Locality Probe has this form. '
                        "Blocks that are not named have the radius above, and dense_blocks stay "
                        "full. Empty gives all blocks one radius."
                    ),
                    **ADVANCED,
                ),
            ],
            outputs=[io.Model.Output()],
            hidden=[io.Hidden.unique_id],
            # The report goes to this very node, not to an equal one that ran before.
            not_idempotent=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        radius: int = 16,
        pool_factor: int = 0,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        dense_blocks: str = "",
        min_tokens: int = 0,
        backend: str = "auto",
        radii: str = "",
    ) -> io.NodeOutput:
        local = WindowSettings(
            radius,
            pool_factor=pool_factor,
            radii=parse_radii(radii),
            start_percent=start_percent,
            end_percent=end_percent,
            dense_blocks=parse_blocks(dense_blocks, "Dense blocks"),
            min_tokens=min_tokens,
            backend=backend,
        )
        node_id = cls.hidden.unique_id if cls.hidden else None
        return io.NodeOutput(with_estimate(with_window(model, local, node_id)))
