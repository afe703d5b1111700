"""The model families whose joint attention CLEAR knows, as one ordered list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import comfy.ldm.flux.model
import comfy.ldm.modules.diffusionmodules.mmdit
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn


@dataclass(frozen=True)
class Family:
    """One architecture; its tokens are text first, then the grid, then references.

    Attributes:
        name: What users call it.
        matches: Whether a diffusion model belongs to it.
        patch: Edge of a token in latent pixels.
        references: Latents of the reference pictures in a call's keyword arguments.
        blocks: Number of blocks of each kind; the kinds are those of its checkpoints.
        hooks: Under which name the host's ``patches_replace`` lists the blocks of a kind.
        runner: The method that runs the blocks, which other nodes are known to replace.
        names_blocks_since: The first host version that tells the attention which block is running,
            or None.
        rotary: Whether ``process_img`` and ``pe_embedder`` make rotary positions.
    """

    name: str
    matches: Callable[[nn.Module], bool]
    patch: Callable[[Any], int]
    references: Callable[[Mapping[str, Any]], list[Tensor]]
    blocks: Callable[[Any], dict[str, int]]
    hooks: Mapping[str, str]
    runner: str
    names_blocks_since: tuple[int, ...] | None
    rotary: bool


def _sd3_blocks(model: Any) -> dict[str, int]:
    """Count the joint blocks, and those of them, the first ones, that attend a second time."""
    image = sum(bool(block.x_block.x_block_self_attn) for block in model.joint_blocks)
    return {"joint": len(model.joint_blocks), **({"image": image} if image else {})}


FLUX = Family(
    name="FLUX",
    matches=lambda model: isinstance(model, comfy.ldm.flux.model.Flux),
    # Hosts before FLUX.2 fix the patch at 2 without an attribute in every place.
    patch=lambda model: int(getattr(model, "patch_size", 2)),
    references=lambda kwargs: list(kwargs.get("ref_latents") or ()),
    blocks=lambda model: {"double": len(model.double_blocks), "single": len(model.single_blocks)},
    hooks={"double": "double_block", "single": "single_block"},
    runner="forward_orig",
    names_blocks_since=(0, 3, 75),
    rotary=True,
)

SD3 = Family(
    name="SD3",
    matches=lambda model: isinstance(model, comfy.ldm.modules.diffusionmodules.mmdit.MMDiT),
    patch=lambda model: int(model.patch_size),
    references=lambda kwargs: [],
    blocks=_sd3_blocks,
    hooks={"joint": "double_block"},
    runner="forward_core_with_concat",
    names_blocks_since=None,
    rotary=False,
)

FAMILIES: tuple[Family, ...] = (FLUX, SD3)


def plain_module(diffusion_model: nn.Module) -> nn.Module:
    """Return the module that torch.compile has wrapped, or the module itself."""
    return getattr(diffusion_model, "_orig_mod", diffusion_model)


def family_of(diffusion_model: nn.Module) -> Family | None:
    """Return the family of a diffusion model, compiled or not, or None."""
    plain = plain_module(diffusion_model)
    return next((family for family in FAMILIES if family.matches(plain)), None)


def _is_nunchaku(module: nn.Module) -> bool:
    """Tell by names, without importing it; its FLUX is a wrapper around a module of its own."""
    types = [type(one) for one in (module, *module.children())]
    return any("nunchaku" in f"{one.__module__}.{one.__name__}".lower() for one in types)


def require_family(model: ModelPatcher) -> Family:
    """Return the family of a MODEL.

    Raises:
        ValueError: CLEAR does not know its architecture; the message says what to do.
    """
    diffusion_model = model.get_model_object("diffusion_model")
    family = family_of(diffusion_model)
    if family is not None:
        return family
    plain = plain_module(diffusion_model)
    if _is_nunchaku(plain):
        raise ValueError(
            "CLEAR cannot be combined with nunchaku models: their attention runs inside nunchaku's "
            "own engine. Load the bf16, fp8 or GGUF version of the model instead."
        )
    names = ", ".join(family.name for family in FAMILIES)
    raise ValueError(
        f"CLEAR supports models of the families {names}, got {type(plain).__name__}. "
        "Remove the CLEAR node from this model."
    )
