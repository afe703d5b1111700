"""CLEAR Locality Probe: how far a model's attention reaches, block by block."""

from typing import Any

from comfy_api.latest import io

from ...clear_attention.comfyui.plan.expected import step_seconds
from ...clear_attention.comfyui.probe.locality import report_locality
from ...clear_attention.comfyui.probe.sample import Sample
from ..inputs import ADVANCED, MEASURING, SLIDER, found_as, radius_input


class CLEARLocality(io.ComfyNode):
    """The share of attention inside each radius, and the radii for a budget, on a real sample."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLEARLocality",
            display_name="CLEAR Locality Probe",
            category=MEASURING,
            **found_as(
                "attention map, attention distance, how far attention reaches, radius, "
                "measure attention, profile attention"
            ),
            description=(
                "Measures how far the attention of each transformer block reaches on a picture of "
                "yours, and chooses a radius for each within a budget of work. Use it to choose "
                "the radii or the dense blocks of CLEAR Attention, or before distilling a model."
            ),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip=(
                        "The diffusion model to measure. It stays as it is. The window of a CLEAR "
                        "node on it is ignored: what is measured is full attention."
                    ),
                ),
                io.Conditioning.Input(
                    "conditioning", tooltip="The prompt of the picture, as for a sampler."
                ),
                io.Latent.Input(
                    "latent",
                    tooltip=(
                        "A finished picture as a latent: from VAE Encode, or from a sampler. Its "
                        "size matters, since larger pictures have farther to look."
                    ),
                ),
                radius_input(
                    "The radius to judge, in tokens of 16 pixels. Blocks that need a larger "
                    "one are listed in dense_blocks. It does not change what is measured."
                ),
                io.Float.Input(
                    "share",
                    default=0.9,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    display_mode=SLIDER,
                    tooltip=(
                        "Share of an image token's attention that the suggested radius keeps, the "
                        "text included. Larger is more cautious; 1 asks for the whole picture."
                    ),
                ),
                io.Float.Input(
                    "at_percent",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    display_mode=SLIDER,
                    tooltip=(
                        "Share of the sampling schedule after which to measure: the latent gets "
                        "the noise of that moment. 0 is pure noise, 1 the finished picture."
                    ),
                    **ADVANCED,
                ),
                io.Int.Input(
                    "queries",
                    default=512,
                    min=0,
                    max=1 << 24,
                    step=64,
                    tooltip=(
                        "Image tokens whose attention is measured, spread evenly over the picture. "
                        "Fewer is faster; 0 measures all of them."
                    ),
                    **ADVANCED,
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    tooltip=(
                        "Seed of the noise and of the choice of tokens. Any value will do; another "
                        "one shows how much the result depends on chance."
                    ),
                    **ADVANCED,
                ),
                io.Float.Input(
                    "budget",
                    optional=True,
                    default=0.25,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    display_mode=SLIDER,
                    tooltip=(
                        "Share of full attention's work that the chosen radii may need, the text "
                        "included. Smaller is faster, larger is closer to full attention; 1 allows "
                        "it. It does not change what is measured."
                    ),
                ),
                io.Int.Input(
                    "noise_levels",
                    optional=True,
                    default=1,
                    min=1,
                    max=8,
                    tooltip=(
                        "At how many places of the schedule to measure, a step each. 1 measures at "
                        "at_percent; more are spread evenly over the schedule instead."
                    ),
                    **ADVANCED,
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="plot",
                    tooltip=(
                        "What each radius keeps in each block and which error it makes, and the "
                        "chosen radii."
                    ),
                ),
                io.String.Output(
                    display_name="radius per block",
                    tooltip="The suggested and the chosen radius of each block, as tables.",
                ),
                io.String.Output(
                    display_name="dense_blocks",
                    tooltip=(
                        "The blocks that need a larger radius, for the input of the same name of "
                        "CLEAR Attention."
                    ),
                ),
                io.String.Output(
                    display_name="radii",
                    tooltip=(
                        "A radius for each block, which together make the least error for the "
                        "budget: for the input of the same name of CLEAR Attention."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        conditioning: Any,
        latent: Any,
        radius: int = 16,
        share: float = 0.9,
        at_percent: float = 0.5,
        queries: int = 512,
        seed: int = 0,
        budget: float = 0.25,
        noise_levels: int = 1,
    ) -> io.NodeOutput:
        return io.NodeOutput(
            *report_locality(
                model,
                Sample(conditioning, latent, at_percent, seed),
                queries=queries,
                share=share,
                radius=radius,
                budget=budget,
                levels=noise_levels,
                seconds=step_seconds,
            )
        )
