"""A small model of each family that CLEAR knows, and of one that a test adds by two entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..controlnet_fixtures import fill


@dataclass(frozen=True)
class Case:
    """A family under test.

    Attributes:
        fixture: That makes its models.
        name: Of the model.
        width: Of its text.
        block: A block of it.
        net: A ControlNet for it, or None where the host has none.
        pooled: Whether its text encoders give a pooled vector.
        channels: Of its latents.
        patch: Edge of a token in latent pixels.
        vae: Fixture of a VAE for it.
    """

    fixture: str
    name: str
    width: int
    block: str
    net: str | None
    pooled: bool = True
    channels: int = 16
    patch: int = 2
    vae: str = "vae"


CASES = {
    "flux2": Case(
        *("flux2_model", "klein", 64, "single 0", None),
        pooled=False,
        channels=128,
        patch=1,
        vae="flux2_vae",
    ),
    "flux": Case("flux_model", "b", 64, "single 0", "instantx"),
    "sd3": Case("sd3_model", "3.5-medium", 48, "image 0", "3.5-medium"),
    "chroma": Case("chroma_model", "chroma", 64, "double 1", "instantx", pooled=False),
    "made_up": Case("made_up_model", "", 40, "single 1", None, pooled=False),
}
SENTENCES = {
    ("sd3", "CLEARHighRes"): "SD3 models have no rotary positions",
    ("made_up", "CLEARHighRes"): "Made up models have no rotary positions",
    ("made_up", "CLEARLowMemory"): "cannot compute the blocks of Made up models in slices",
    ("made_up", "CLEARLoader"): "is made for FLUX.1, the model is Made up",
    ("made_up", "CLEARExtractLoRA"): "is made for FLUX.1, the model is Made up",
    ("made_up", "CLEARDistill"): r"CLEAR weights are known for .*, the model is Made up\.",
}
"""What a node says of a family in place of working; all that is not here works."""


def made_up_families(product: Callable[[str], Any]) -> tuple[Any, Any]:
    """Write the two entries of a family: the host's AuraFlow, as if it were new."""
    import comfy.ldm.aura.mmdit

    data, host = product("families.family"), product("comfyui.families.family")
    family = data.Family(
        key="made_up",
        title="Made up",
        kinds=(data.AttentionKind("double"), data.AttentionKind("single")),
        positions="table",
        network=product("families.network").flux,
        names=None,
    )

    def dimensions(model: Any) -> Mapping[str, int]:
        hidden = model.init_x_linear.out_features
        return dict(
            hidden=hidden,
            heads=model.double_layers[0].attn.n_heads,
            mlp=4 * hidden,
            double=len(model.double_layers),
            single=len(model.single_layers),
            latent_values=model.final_linear.out_features,
            input_values=model.init_x_linear.in_features,
            context=model.cond_seq_linear.in_features,
        )

    return family, host.HostFamily(
        data=family,
        matches=lambda model: isinstance(model, comfy.ldm.aura.mmdit.MMDiT),
        blocks=(
            host.HostBlocks("double", "double_layers"),
            host.HostBlocks("single", "single_layers"),
        ),
        dimensions=dimensions,
        by_length=True,
    )


def aura() -> Any:
    """Make a narrow AuraFlow, for latents of 16 channels."""
    import comfy.latent_formats
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.AuraFlow(
        dict(
            in_channels=16,
            out_channels=16,
            dim=64,
            n_heads=2,
            n_layers=3,
            n_double_layers=1,
            global_conddim=64,
            cond_seq_dim=40,
            max_seq=32 * 32,
        )
    )
    config.latent_format = comfy.latent_formats.Flux()
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({})
    fill(model.diffusion_model, seed=5)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)
