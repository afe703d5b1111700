"""CLEAR Plan: what a run will cost, before it is started."""

from typing import Any

from comfy_api.latest import io, ui

from ...clear_attention.comfyui.parallel.node import devices_of
from ...clear_attention.comfyui.plan.node import plan_run
from ..inputs import ADVANCED, MEASURING, found_as, radius_input
from ..reported import ReportedNode


class CLEARPlan(ReportedNode):
    """Time, memory and a verdict, with full attention and with CLEAR."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLEARPlan",
            display_name="CLEAR Plan",
            category=MEASURING,
            **found_as(
                "how long, will it fit, estimate, vram calculator, out of memory, time "
                "estimate, benchmark"
            ),
            description=(
                "Tells before a run how long a step will take and how much memory it will need, "
                "with full attention and with CLEAR, and whether to slice or to tile. Measures "
                "this machine for a second or two; nothing is sampled."
            ),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip=(
                        "The diffusion model, with or without a CLEAR node in front. It comes out "
                        "again; a run of that output is compared with the plan."
                    ),
                ),
                io.Int.Input(
                    "width",
                    default=2048,
                    min=16,
                    max=32768,
                    step=8,
                    tooltip="Width of the picture in pixels.",
                ),
                io.Int.Input(
                    "height",
                    default=2048,
                    min=16,
                    max=32768,
                    step=8,
                    tooltip="Height of the picture in pixels.",
                ),
                radius_input(
                    "Radius of the window in tokens of 16 pixels. 0 takes what the CLEAR node "
                    "on the model does, pooling and dense blocks too, or 16 without one.",
                    or_zero=True,
                ),
                io.Int.Input(
                    "pool_factor",
                    default=0,
                    min=0,
                    max=32,
                    tooltip=(
                        "Factor of the pooled branch, which costs work quadratic in the pixels. "
                        "0 is none. It counts together with a radius other than 0."
                    ),
                    **ADVANCED,
                ),
                io.Int.Input(
                    "text_tokens",
                    default=256,
                    min=0,
                    max=16384,
                    tooltip=(
                        "Length of the prompt in tokens. ComfyUI pads FLUX.1 prompts to 256, "
                        "FLUX.2 prompts to 512; SD3 has 154 for a short one."
                    ),
                    **ADVANCED,
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=4096,
                    tooltip="Pictures in one call of the model. A cfg other than 1 doubles them.",
                    **ADVANCED,
                ),
                io.Int.Input(
                    "steps",
                    default=20,
                    min=1,
                    max=10000,
                    tooltip="Sampling steps, for the time of the whole run.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip=(
                        "The VAE that will decode the picture. Without it the one of FLUX and SD3 "
                        "is assumed."
                    ),
                ),
                io.Int.Input(
                    "devices",
                    default=0,
                    min=0,
                    max=64,
                    optional=True,
                    tooltip=(
                        "GPUs that share each step, all as fast as this one. 0 takes those of the "
                        "CLEAR Parallel node on the model, or 1 without one; from 2 on the table "
                        "shows their time too."
                    ),
                ),
                io.Float.Input(
                    "link_gb_per_s",
                    default=12.0,
                    min=0.01,
                    max=10000.0,
                    step=0.01,
                    optional=True,
                    tooltip=(
                        "GB per second that a GPU receives from the others. PCIe 4 x16: about 25, "
                        "or 6 to 12 where cards cannot reach each other's memory, as most for "
                        "games; PCIe 3 x16: half of that; NVLink: 100 to 450; 10 GbE: 1.1. It "
                        "counts with two or more devices only."
                    ),
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="plan",
                    tooltip="Tokens, operations, seconds, memory and the verdict, as text.",
                ),
                io.Image.Output(
                    display_name="plot",
                    tooltip="Time and memory over the size of the picture; needs matplotlib.",
                ),
                io.Model.Output(
                    display_name="model",
                    tooltip="The model. After a run of it the node compares plan and measurement.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
            # The comparison goes to this very node, not to an equal one that ran before.
            not_idempotent=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        width: int = 2048,
        height: int = 2048,
        radius: int = 0,
        pool_factor: int = 0,
        text_tokens: int = 256,
        batch_size: int = 1,
        steps: int = 20,
        vae: Any = None,
        devices: int = 0,
        link_gb_per_s: float = 12.0,
    ) -> io.NodeOutput:
        text, plot, model = plan_run(
            model,
            (height, width),
            node_id=cls.hidden.unique_id if cls.hidden else None,
            radius=radius,
            pool_factor=pool_factor,
            text_tokens=text_tokens,
            batch=batch_size,
            steps=steps,
            vae=vae,
            devices=devices or devices_of(model),
            link=link_gb_per_s * 1e9,
        )
        return io.NodeOutput(text, plot, model, ui=ui.PreviewText(text))
