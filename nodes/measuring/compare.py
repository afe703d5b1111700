"""CLEAR Compare: what CLEAR costs a prompt on a model, seen and measured."""

from typing import Any

from comfy.samplers import KSampler
from comfy_api.latest import io, ui

from ...clear_attention.comfyui.compare.contestants import files_of
from ...clear_attention.comfyui.compare.node import compare
from ..inputs import ADVANCED, MEASURING, found_as


class CLEARCompare(io.ComfyNode):
    """The same pictures with CLEAR and without, side by side."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLEARCompare",
            display_name="CLEAR Compare",
            category=MEASURING,
            **found_as(
                "compare quality, a/b test, quality loss, difference, psnr, ssim, side by side, "
                "which radius, benchmark"
            ),
            description=(
                "Paints the same seeds with a model and with the same model behind CLEAR, and "
                "shows them side by side with their difference. A table has the errors, as shares "
                "of what another seed changes, and the seconds of both."
            ),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip=(
                        "The model without CLEAR, with the LoRAs and other nodes that you use. It "
                        "stays as it is."
                    ),
                ),
                io.Model.Input(
                    "clear_model",
                    tooltip=(
                        "The same model behind Load CLEAR Attention or CLEAR Attention. It stays "
                        "as it is."
                    ),
                ),
                io.Conditioning.Input(
                    "positive", tooltip="The prompt, as for a sampler; ControlNets count too."
                ),
                io.Conditioning.Input(
                    "negative", tooltip="What is not shown. At cfg 1 it has no effect."
                ),
                io.Latent.Input(
                    "latent",
                    tooltip=(
                        "An empty latent of the size at which you paint. Its batch is painted for "
                        "each seed, and its noise mask holds."
                    ),
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Seed of the first picture; each further one has the next seed.",
                ),
                io.Int.Input(
                    "pictures",
                    default=2,
                    min=1,
                    max=16,
                    tooltip=(
                        "Number of seeds, each painted by every model; one more is painted by "
                        "model alone. More make the means sure: from 2 on they have a standard "
                        "error."
                    ),
                ),
                io.Int.Input(
                    "steps", default=20, min=1, max=10000, tooltip="Sampling steps, as in KSampler."
                ),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Classifier-free guidance. 1 switches it off, as FLUX wants it.",
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=list(KSampler.SAMPLERS),
                    default="euler",
                    tooltip="The sampler, as in KSampler.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=list(KSampler.SCHEDULERS),
                    default="simple",
                    tooltip="The scheduler, as in KSampler.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip=(
                        "The model's VAE. Without one, latents are compared, and the sheet shows "
                        "them in rough colours."
                    ),
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip=(
                        "A CLIP, SigLIP or DINOv2 vision model, which adds how far the pictures "
                        "are apart in what they show. It needs a VAE."
                    ),
                ),
                # Last and optional: saved workflows and prompts list their values by position.
                io.String.Input(
                    "sweep",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip=(
                        "Further candidates on model, one per line: a radius (8), a radius and "
                        "others per block (16, double 0-3: 8), or a file of models/clear. Each "
                        "gets its columns and its line in the table. Empty adds none."
                    ),
                    **ADVANCED,
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="sheet",
                    tooltip=(
                        "A row per picture: model, CLEAR, their difference times 4, and another "
                        "seed."
                    ),
                ),
                io.String.Output(
                    display_name="table",
                    tooltip="Velocity errors, distances of the pictures, seconds, as text.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, sweep: str | None = None, **_: Any) -> str:
        """Run the node again when a file of the sweep was replaced under its name."""
        return files_of(sweep or "")

    @classmethod
    def execute(
        cls,
        model: Any,
        clear_model: Any,
        positive: Any,
        negative: Any,
        latent: Any,
        seed: int = 0,
        pictures: int = 2,
        steps: int = 20,
        cfg: float = 1.0,
        sampler_name: str = "euler",
        scheduler: str = "simple",
        vae: Any = None,
        clip_vision: Any = None,
        sweep: str = "",
    ) -> io.NodeOutput:
        sheet, table = compare(
            model,
            clear_model,
            positive,
            negative,
            latent,
            seed=seed,
            pictures=pictures,
            steps=steps,
            cfg=cfg,
            sampler=sampler_name,
            scheduler=scheduler,
            vae=vae,
            clip_vision=clip_vision,
            sweep=sweep,
        )
        return io.NodeOutput(sheet, table, ui=ui.PreviewText(table))
