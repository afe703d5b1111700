"""Distil CLEAR Attention: train the weights of a window for any supported model."""

from typing import Any

from comfy_api.latest import io

from ..clear_attention.distill.config import (
    OPTIMISERS,
    Generation,
    Optimiser,
    StudentConfig,
    Training,
)
from .inputs import ADVANCED, TRAINING, found_as, radius_input

PROMPTS = "a photograph of a lighthouse at dusk\na portrait of an old fisherman\na red bicycle"


class CLEARDistill(io.ComfyNode):
    """Distillation in the graph."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLEARDistill",
            display_name="Distil CLEAR Attention",
            category=TRAINING,
            **found_as(
                "train, distill, fine tune attention, train lora, local attention training, "
                "make clear weights"
            ),
            description=(
                "Trains the attention of a model to work inside a window, and writes the file that "
                "Load CLEAR Attention takes. The model paints its own training pictures from the "
                "prompts. Takes hours on a large model; stopped and queued again, it goes on."
            ),
            inputs=[
                io.Model.Input(
                    "model", tooltip="The diffusion model to distil. It stays as it is."
                ),
                io.Clip.Input("clip", tooltip="The model's text encoders."),
                io.String.Input(
                    "prompts",
                    default=PROMPTS,
                    multiline=True,
                    tooltip=(
                        "What the training pictures show, one prompt per line, taken in turn. The "
                        "more different ones, the better; the last tenth is kept for validation."
                    ),
                ),
                io.String.Input(
                    "name",
                    default="clear_my_model",
                    tooltip=(
                        "Beginning of the file's name in models/clear, and folder of the run in "
                        "output/clear_distill. The same name goes on with a run; another model, "
                        "or other settings, need another one."
                    ),
                ),
                radius_input(
                    "Radius of the window in tokens of 16 pixels. Smaller is faster to use and "
                    "harder to learn; the CLEAR Locality Probe suggests one."
                ),
                io.Int.Input(
                    "pool_factor",
                    default=0,
                    min=0,
                    max=32,
                    tooltip=(
                        "Lets every image token also see a copy of the picture that is coarser by "
                        "this factor. 0 trains without."
                    ),
                ),
                io.Int.Input(
                    "rank",
                    default=64,
                    min=0,
                    max=1024,
                    tooltip=(
                        "Rank of the change to each projection: the file is a small LoRA, and FLUX "
                        "needs little more memory than to paint. 0 trains whole matrices, as the "
                        "paper does, which takes twice to three times as much."
                    ),
                ),
                io.Int.Input(
                    "steps",
                    default=2000,
                    min=1,
                    max=1_000_000,
                    tooltip="Updates of the weights. The paper does 10,000 of 32 pictures each.",
                ),
                io.Int.Input(
                    "batch",
                    default=4,
                    min=1,
                    max=1024,
                    tooltip="Pictures per update, computed one at a time to save memory.",
                ),
                io.Int.Input(
                    "samples",
                    default=500,
                    min=1,
                    max=1_000_000,
                    tooltip="Training pictures to paint. The paper takes 10,000.",
                ),
                io.Int.Input(
                    "width",
                    default=1024,
                    min=128,
                    max=8192,
                    step=16,
                    tooltip="Width of the training pictures in pixels.",
                ),
                io.Int.Input(
                    "height",
                    default=1024,
                    min=128,
                    max=8192,
                    step=16,
                    tooltip="Height of the training pictures in pixels.",
                ),
                io.Combo.Input(
                    "optimiser",
                    options=list(OPTIMISERS),
                    default="prodigy",
                    tooltip=(
                        "prodigy finds its own step size. adamw needs less memory, adamw8bit (with "
                        "bitsandbytes) still less; both may need a learning_rate that you find by "
                        "trying."
                    ),
                    **ADVANCED,
                ),
                io.Float.Input(
                    "learning_rate",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.00001,
                    tooltip=(
                        "Step size; for prodigy a factor on the one that it finds. 0 takes 1 for "
                        "prodigy and 0.0001 for the others."
                    ),
                    **ADVANCED,
                ),
                io.Float.Input(
                    "guidance",
                    default=3.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance for guidance-distilled models such as FLUX.1 [dev].",
                    **ADVANCED,
                ),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=1.0,
                    max=100.0,
                    step=0.1,
                    tooltip=(
                        "Classifier-free guidance of the training pictures: 1 (none) for FLUX, "
                        "what you paint with for SD3."
                    ),
                    **ADVANCED,
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    tooltip="Seed of the training pictures, of their order and of the noise.",
                    **ADVANCED,
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Shows pictures of teacher and student while training. Not needed.",
                ),
                io.String.Input(
                    "radii",
                    default="",
                    optional=True,
                    tooltip=(
                        'A radius per block in place of the one above, such as "double 0-3: 8, '
                        'single 0: 32": the output radii of CLEAR Locality Probe has this form. '
                        "Empty gives all blocks one radius."
                    ),
                    **ADVANCED,
                ),
                io.String.Input(
                    "pictures_folder",
                    default="",
                    optional=True,
                    tooltip=(
                        "Folder of pictures to learn from too, or alone where there are no "
                        "prompts: in ComfyUI's input folder, or a whole path. Each has a text file "
                        "of the same name with its caption; a tenth is kept for validation. Needs "
                        "a vae. Empty takes none."
                    ),
                    **ADVANCED,
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="clear_name", tooltip="The file that was written to models/clear."
                ),
                io.Image.Output(display_name="losses", tooltip="The losses over the updates."),
                io.Image.Output(
                    display_name="pictures",
                    tooltip="The teacher's pictures above the student's; needs a vae.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        prompts: str,
        name: str,
        radius: int,
        pool_factor: int,
        rank: int,
        steps: int,
        batch: int,
        samples: int,
        width: int,
        height: int,
        optimiser: str,
        learning_rate: float,
        guidance: float,
        cfg: float,
        seed: int,
        vae: Any = None,
        radii: str = "",
        pictures_folder: str = "",
    ) -> io.NodeOutput:
        # What trains needs packages that painting does not: imported where it is used.
        from ..clear_attention.comfyui.distill.node import distil_in_graph, precision_of

        settings = dict(
            student=StudentConfig(radius, pool_factor, rank, radii=radii),
            generation=Generation(samples=samples, sizes_px=((height, width),), cfg=cfg, seed=seed),
            training=Training(
                steps=steps,
                batch=batch,
                accumulate=batch,
                seed=seed,
                guidance=guidance,
                precision=precision_of(model),
                gradient_checkpointing=True,
                log_every=max(1, min(10, steps // 20)),
                validate_every=max(1, steps // 10),
            ),
            optimiser=Optimiser(name=optimiser, learning_rate=learning_rate),
        )
        node_id = cls.hidden.unique_id if cls.hidden else None
        done = distil_in_graph(model, clip, vae, name, prompts, settings, node_id, pictures_folder)
        return io.NodeOutput(done.clear_name, done.losses, done.pictures)
