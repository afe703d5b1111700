"""Load CLEAR Attention: distilled weights and their window, as one would load a LoRA."""

from typing import Any

from comfy_api.latest import io

from ..clear_attention.comfyui.plan.benefit import with_estimate
from ..clear_attention.comfyui.weights.folder import clear_files, fingerprint
from ..clear_attention.comfyui.weights.loader import load_onto
from .inputs import CATEGORY, backend_input, found_as, model_input, radius_input
from .reported import ReportedNode


class CLEARLoader(ReportedNode):
    """Distilled local attention."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLEARLoader",
            display_name="Load CLEAR Attention",
            category=CATEGORY,
            **found_as(
                "local attention, sparse attention, linear attention, flux 8k, flux 4k, flux "
                "large pictures, faster flux, speed up, out of memory, low vram"
            ),
            description=(
                "Loads distilled CLEAR weights onto a model and limits its attention to the window "
                "that they were distilled for, which makes it linear in the picture's pixels. Put "
                "it between the model loader and the sampler; LoRAs may come before or after."
            ),
            inputs=[
                model_input(),
                io.Combo.Input(
                    "clear_name",
                    options=clear_files(),
                    tooltip=(
                        "A CLEAR file in the folder models/clear, such as "
                        "clear_local_16.safetensors."
                    ),
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    tooltip=(
                        "Share of the distilled weights: base + strength x (CLEAR - base). 1 is "
                        "the file as distilled; 0 switches the node off, window included."
                    ),
                ),
                radius_input(
                    "Radius of the window in tokens of 16 pixels. 0 takes the radius that the "
                    "file was distilled for; a larger one is slower and seldom better.",
                    or_zero=True,
                ),
                backend_input(),
                io.Model.Input(
                    "reference_model",
                    optional=True,
                    tooltip=(
                        "For finetunes: the model that the CLEAR file was distilled from, in 16 "
                        "bits; FLUX.1 [dev] for the published ones. What distilling changed is "
                        "added to the model's own weights. Left out, the file replaces them."
                    ),
                ),
            ],
            outputs=[io.Model.Output()],
            hidden=[io.Hidden.unique_id],
            # The report goes to this very node, not to an equal one that ran before.
            not_idempotent=True,
        )

    @classmethod
    def fingerprint_inputs(cls, clear_name: str | None = None, **_: Any) -> str:
        """Run the node again when the file was replaced under its name."""
        super().fingerprint_inputs()
        return fingerprint(clear_name)

    @classmethod
    def execute(
        cls,
        model: Any,
        clear_name: str,
        strength: float = 1.0,
        radius: int = 0,
        backend: str = "auto",
        reference_model: Any = None,
    ) -> io.NodeOutput:
        node_id = cls.hidden.unique_id if cls.hidden else None
        loaded = load_onto(
            model, clear_name, strength, radius or None, backend, node_id, reference_model
        )
        return io.NodeOutput(with_estimate(loaded))
