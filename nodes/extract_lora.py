"""Extract CLEAR LoRA: what distilling changed, as a small file."""

from typing import Any

from comfy_api.latest import io, ui

from ..clear_attention.comfyui.weights.extract import extract_lora
from ..clear_attention.comfyui.weights.folder import clear_files, fingerprint
from .inputs import TRAINING, found_as, radius_input


class CLEARExtractLoRA(io.ComfyNode):
    """The difference between CLEAR weights and their base, of low rank."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLEARExtractLoRA",
            display_name="Extract CLEAR LoRA",
            category=TRAINING,
            **found_as("extract lora, lora from weights, shrink checkpoint, svd, small file"),
            description=(
                "Writes what distilling changed as a LoRA into models/loras/clear: a few percent "
                "of the size, at the price of some accuracy, which the node tells. Load CLEAR "
                "Attention takes it on any finetune, window included; other LoRA loaders take the "
                "weights alone."
            ),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip=(
                        "The model that the CLEAR file was distilled from, in 16 bits: FLUX.1 "
                        "[dev] for the published ones. LoRAs on it take no part. It stays as it is."
                    ),
                ),
                io.Combo.Input(
                    "clear_name",
                    options=clear_files(),
                    tooltip="A CLEAR file of whole weights, such as clear_local_16.safetensors.",
                ),
                io.Int.Input(
                    "rank",
                    default=128,
                    min=1,
                    max=8192,
                    tooltip=(
                        "Rank of the change of each projection. Larger loses less and makes a "
                        "larger file, in proportion; the model's width loses nothing."
                    ),
                ),
                io.String.Input(
                    "name",
                    default="",
                    tooltip=(
                        "Name of the file; one that is there is replaced. Empty takes the name of "
                        "the CLEAR file and the rank, such as clear_local_16_rank_128."
                    ),
                ),
                radius_input(
                    "Radius of the window in tokens of 16 pixels, for the new file's metadata. "
                    "0 takes the radius that the CLEAR file was distilled for.",
                    or_zero=True,
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="lora_name",
                    tooltip="The file as Load CLEAR Attention lists it.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="Rank, size, and the error of each kind of projection.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, clear_name: str | None = None, **_: Any) -> str:
        """Run the node again when the file was replaced under its name."""
        return fingerprint(clear_name)

    @classmethod
    def execute(
        cls, model: Any, clear_name: str, rank: int, name: str = "", radius: int = 0
    ) -> io.NodeOutput:
        written = extract_lora(model, clear_name, rank, name, radius or None)
        return io.NodeOutput(written.name, written.report, ui=ui.PreviewText(written.report))
