"""Latents as people and vision models see them: decoded, or as they are where there is no VAE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...compare.measurement import Distance
from ...compare.pictures import cosine_distance, ssim
from ...compare.velocity import squared_difference
from ..vae.pixels import decode

TRIAL_LATENT = 8
"""Side of the latent with which a VAE is tried."""

TILE_PX = 2048
"""Larger pictures are decoded in tiles, so that they fit after the run too."""


@dataclass(frozen=True, eq=False)
class Look:
    """What is compared of a latent.

    Attributes:
        values: ``[B, C, H, W]``: decoded pictures in [0, 1], or latents.
        embeddings: ``[B, D]`` by the name of the vision model.
        is_latent: Whether the values are latents.
    """

    values: Tensor
    embeddings: Mapping[str, Tensor] = field(default_factory=dict)
    is_latent: bool = False


@dataclass(frozen=True, eq=False)
class Eyes:
    """What looks at latents.

    Attributes:
        model: The MODEL whose latents they are.
        vae: Decodes them, or None: then latents are compared.
        vision: The host's CLIP_VISION models by name; they need a VAE.
    """

    model: ModelPatcher
    vae: Any = None
    vision: Mapping[str, Any] = field(default_factory=dict)

    def look(self, latent: Tensor) -> Look:
        """Decode latents ``[B, C, H, W]``, or with a frame in front of H, and embed them."""
        if self.vae is None:
            return Look(latent.flatten(1, -3), is_latent=True)
        image = decode(self.vae, latent, TILE_PX).float().cpu().clamp(0, 1)
        embeddings = {
            name: embedding(model, image.nan_to_num()) for name, model in self.vision.items()
        }
        return Look(image.movedim(-1, 1), embeddings)

    def thumbnail(self, look: Look) -> Tensor | None:
        """Return what people see of a look, ``[B, H, W, 3]`` in [0, 1]; None of some latents."""
        if not look.is_latent:
            return look.values.movedim(1, -1)
        latent_format = self.model.get_model_object("latent_format")
        factors = getattr(latent_format, "latent_rgb_factors", None)
        if factors is None:
            return None
        values, reshape = look.values, getattr(latent_format, "latent_rgb_factors_reshape", None)
        if reshape is not None:
            values = reshape(values)
        weights = torch.tensor(factors, dtype=values.dtype)
        if values.shape[1] != weights.shape[0]:
            return None
        bias = getattr(latent_format, "latent_rgb_factors_bias", None)
        rgb = values.movedim(1, -1) @ weights + (0 if bias is None else torch.tensor(bias))
        return ((rgb + 1) / 2).clamp(0, 1)

    def try_out(self) -> None:
        """Decode and embed a small empty latent, so that no long run ends with an error.

        Raises:
            ValueError: The VAE or a vision model does not fit; the message says which.
        """
        if self.vae is None:
            return
        latent_format = self.model.get_model_object("latent_format")
        channels, frames = latent_format.latent_channels, latent_format.latent_dimensions == 3
        side = TRIAL_LATENT
        latent = torch.zeros(1, channels, *([1] if frames else []), side, side)
        try:
            image = decode(self.vae, latent, 0)
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"vae must decode latents of the model, which have {channels} channels, got one "
                f"that fails ({first_line(error)}). Connect the VAE that belongs to the model."
            ) from error
        for model in self.vision.values():
            try:
                embedding(model, image)
            except (RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
                raise ValueError(
                    "clip_vision must return one embedding of a picture, got a model that does not "
                    f"({first_line(error)}). Connect a CLIP, SigLIP or DINOv2 vision model."
                ) from error


def embedding(model: Any, image: Tensor) -> Tensor:
    """Return what a CLIP_VISION makes of pictures: ``[B, H, W, 3] -> [B, D]``.

    The host cuts out the middle square. Of models without a projected embedding it is the first
    token of the last layer, which is their summary.
    """
    output = model.encode_image(image)
    found = output["image_embeds"]
    found = output["last_hidden_state"][:, 0] if found is None else found
    return found.flatten(1).float().cpu()


def kind_of(model: Any) -> str:
    """Name the kind of a CLIP_VISION."""
    network = type(getattr(model, "model", model)).__name__.lower()
    if "dino" in network:
        return "DINO"
    return "SigLIP" if getattr(model, "return_all_hidden_states", False) else "CLIP"


def distance_of(look: Look, other: Look, errors: Tensor, powers: Tensor) -> Distance:
    """Return how far a picture is from another one, which is full attention's.

    Args:
        look: One picture, ``[1, C, H, W]``.
        other: Full attention's.
        errors: Of the velocities at each noise level, ``[levels]``.
        powers: Of full attention's velocities.
    """
    peak = peak_of(other)
    found = {
        name: float(cosine_distance(look.embeddings[name], embedded))
        for name, embedded in other.embeddings.items()
    }
    return Distance(
        tuple(errors.tolist()),
        tuple(powers.tolist()),
        float(squared_difference(look.values, other.values)) / peak**2,
        float(ssim(look.values, other.values, peak)),
        found,
    )


def peak_of(look: Look) -> float:
    """Return the range of values: 1 of pictures; of latents from the smallest to the largest."""
    if not look.is_latent:
        return 1.0
    finite = look.values[look.values.isfinite()]
    return float(finite.max() - finite.min()) or 1.0 if finite.numel() else 1.0


def first_line(error: BaseException) -> str:
    """Return the first line of an error, or its name."""
    return (str(error).splitlines() or [type(error).__name__])[0]
