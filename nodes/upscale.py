"""CLEAR Upscale: a guided cascade that turns a picture into 4K or 8K."""

from typing import Any

from comfy.samplers import KSampler
from comfy_api.latest import io

from ..clear_attention.comfyui.upscale.cascade import Painting, Sampling
from ..clear_attention.comfyui.upscale.presets import CUSTOM, PRESETS, Preset, preset_named
from ..clear_attention.comfyui.upscale.run import PictureSize, upscale
from .inputs import ADVANCED, SLIDER, UPSCALING, found_as
from .reported import ReportedNode


class CLEARUpscale(ReportedNode):
    """A picture enlarged in stages."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLEARUpscale",
            display_name="CLEAR Upscale (1K to 8K)",
            category=UPSCALING,
            **found_as(
                "upscale 2k, upscale 4k, upscale 8k, upscaler, enlarge, hires fix, hires, "
                "super resolution, tiled upscale, ultimate sd upscale, add detail, flux "
                "upscale, flux 8k"
            ),
            description=(
                "Enlarges a picture to 4K or 8K in stages of at most twice the size. Each stage "
                "enlarges, adds noise and paints over, held to what the smaller picture shows. "
                "Finished stages are kept: stopped and queued again, it goes on."
            ),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip=(
                        "The diffusion model, behind Load CLEAR Attention for large pictures. It "
                        "stays as it is."
                    ),
                ),
                io.Vae.Input("vae", tooltip="The model's VAE."),
                io.Conditioning.Input(
                    "positive",
                    tooltip=(
                        "What the picture shows. ControlNets, masks and areas are scaled along."
                    ),
                ),
                io.Conditioning.Input(
                    "negative", tooltip="What it does not show. At cfg 1 it has no effect."
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="The picture to enlarge, or connect latent."
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip=(
                        "The picture to enlarge as a latent, in place of image. A noise mask in it "
                        "limits every stage."
                    ),
                ),
                io.UpscaleModel.Input(
                    "upscale_model",
                    optional=True,
                    tooltip=(
                        "An upscale model that enlarges in each stage before it is painted over. "
                        "Without one it is done by Lanczos."
                    ),
                ),
                io.Int.Input(
                    "size",
                    default=4096,
                    min=64,
                    max=16384,
                    step=8,
                    tooltip=(
                        "Longer side of the result in pixels; the aspect ratio is kept. The "
                        "picture's own longer side paints over it once without enlarging."
                    ),
                ),
                io.String.Input(
                    "stages",
                    default="",
                    tooltip=(
                        'Longer sides in pixels on the way to size, such as "2048, 4096". Empty: '
                        "as few as keep each at most twice the one before."
                    ),
                    **ADVANCED,
                ),
                io.String.Input(
                    "denoise",
                    default="0.7, 0.5",
                    tooltip=(
                        "How much is painted anew in each stage, 0 to 1; the last number holds for "
                        "all further stages. 0.7 runs the last 70 % of the steps; 0 only enlarges."
                    ),
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Seed of the noise of every stage. Any value will do.",
                ),
                io.Int.Input(
                    "steps",
                    default=20,
                    min=1,
                    max=10000,
                    tooltip="Steps of the whole schedule, of which each stage runs the last ones.",
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
                    tooltip="The sampler of every stage, as in KSampler.",
                    **ADVANCED,
                ),
                io.Combo.Input(
                    "scheduler",
                    options=list(KSampler.SCHEDULERS),
                    default="simple",
                    tooltip="The scheduler of every stage, as in KSampler.",
                    **ADVANCED,
                ),
                io.Float.Input(
                    "guidance_strength",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    display_mode=SLIDER,
                    tooltip=(
                        "How firmly a stage's coarse shapes are held to the smaller picture's at "
                        "its first step. Higher repeats less and invents less; 0 switches it off."
                    ),
                    **ADVANCED,
                ),
                io.Float.Input(
                    "guidance_decay",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    tooltip=(
                        "How fast that falls to nothing over a stage's steps. 0 holds it to the "
                        "end, 1 is half gone at half of the steps, 3 leaves most steps free."
                    ),
                    **ADVANCED,
                ),
                io.Int.Input(
                    "trained_size",
                    default=1024,
                    min=0,
                    max=16384,
                    step=8,
                    tooltip=(
                        "Longer side in pixels that the model was trained on. Stages beyond it get "
                        "what CLEAR High Resolution sets; 0 leaves the model as it is connected."
                    ),
                    **ADVANCED,
                ),
                io.Int.Input(
                    "vae_tile",
                    default=1024,
                    min=0,
                    max=16384,
                    step=64,
                    tooltip=(
                        "Larger pictures go through the VAE in tiles of this many pixels. Smaller "
                        "ones need less memory; 0 never tiles."
                    ),
                    **ADVANCED,
                ),
                # Last and optional: saved workflows and prompts list their values by position.
                io.Combo.Input(
                    "preset",
                    options=[CUSTOM, *PRESETS],
                    default=CUSTOM,
                    optional=True,
                    tooltip=(
                        "What may change: keep my picture sharpens it, add detail invents small "
                        "things, repaint paints it anew. They set denoise, guidance_strength and "
                        "guidance_decay; custom takes these from the inputs."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The large picture."),
                io.Latent.Output(display_name="latent", tooltip="Its latent."),
            ],
            hidden=[io.Hidden.unique_id],
            # The report goes to this very node, not to an equal one that ran before.
            not_idempotent=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        positive: Any,
        negative: Any,
        size: int,
        stages: str,
        denoise: str,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        guidance_strength: float,
        guidance_decay: float,
        trained_size: int,
        vae_tile: int,
        image: Any = None,
        latent: Any = None,
        upscale_model: Any = None,
        preset: str = CUSTOM,
    ) -> io.NodeOutput:
        chosen, notes = preset_named(preset, Preset(denoise, guidance_strength, guidance_decay))
        return io.NodeOutput(
            *upscale(
                Painting(model, vae, positive, negative, upscale_model),
                Sampling(
                    seed=seed,
                    cfg=cfg,
                    sampler=sampler_name,
                    scheduler=scheduler,
                    guidance=chosen.guidance_strength,
                    decay=chosen.guidance_decay,
                    tile=vae_tile,
                    scaled=trained_size > 0,
                ),
                PictureSize(size, stages, chosen.denoise, steps, trained_size),
                image,
                latent,
                node_id=cls.hidden.unique_id if cls.hidden else None,
                notes=notes,
            )
        )
