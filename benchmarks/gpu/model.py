"""FLUX.1 [dev] in the host's own class, with random weights: nothing is loaded from disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Size:
    """How large a model is; the defaults are FLUX.1 [dev]'s.

    Attributes:
        double_blocks: Number of blocks with two streams.
        single_blocks: Number of blocks with one stream.
        hidden: Width.
        text_dim: Width of the text encoder's tokens.
        pooled_dim: Width of the pooled text.
    """

    double_blocks: int = 19
    single_blocks: int = 38
    hidden: int = 3072
    text_dim: int = 4096
    pooled_dim: int = 768

    @property
    def blocks(self) -> int:
        """Number of blocks, with one attention each."""
        return self.double_blocks + self.single_blocks


FLUX_DEV = Size()

HEAD_DIM = 128
AXES = (16, 56, 56)
LATENT_CHANNELS = 16
PIXELS_PER_LATENT = 8
PIXELS_PER_TOKEN = 16
SIGMA = 0.7

# With norms of one every query would see all its keys nearly alike, and their mean says little.
QUERY_NORM = 3.0


def random_model(size: Size, device: torch.device, dtype: torch.dtype) -> Any:
    """Build a MODEL of random weights directly on its device."""
    model = empty_model(size, device, dtype)
    randomise(model.model.diffusion_model)
    return model


def empty_model(size: Size, device: torch.device, dtype: torch.dtype) -> Any:
    """Build a MODEL directly on its device, whose weights nobody has written yet."""
    import comfy.model_patcher
    import comfy.supported_models

    from demo.nodes.network import required_by_host

    config = comfy.supported_models.Flux(
        {
            "image_model": "flux",
            "in_channels": LATENT_CHANNELS,
            "out_channels": LATENT_CHANNELS,
            "patch_size": PIXELS_PER_TOKEN // PIXELS_PER_LATENT,
            "hidden_size": size.hidden,
            "num_heads": size.hidden // HEAD_DIM,
            "depth": size.double_blocks,
            "depth_single_blocks": size.single_blocks,
            "mlp_ratio": 4.0,
            "context_in_dim": size.text_dim,
            "vec_in_dim": size.pooled_dim,
            "guidance_embed": True,
            "qkv_bias": True,
            "axes_dim": list(AXES),
            "theta": 10000,
            **required_by_host(),
        }
    )
    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, "", device=device)
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


def randomise(network: torch.nn.Module) -> None:
    """Draw the matrices at random so that they keep the variance; norms and biases are constant."""
    first = next(network.parameters())
    generator = torch.Generator(first.device).manual_seed(0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight.shape[1] ** -0.5, generator=generator)
            elif "query_norm" in name:
                weight.fill_(QUERY_NORM)
            else:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)


def random_inputs(size: Size, edge_px: int, text: int, device: torch.device) -> dict[str, Tensor]:
    """Return what the sampler gives to the model in one step, by the names of `apply_model`."""
    generator = torch.Generator(device).manual_seed(1)
    latent = edge_px // PIXELS_PER_LATENT

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    return {
        "x": draw(1, LATENT_CHANNELS, latent, latent),
        "t": torch.tensor([SIGMA], device=device),
        "c_crossattn": draw(1, text, size.text_dim),
        "y": draw(1, size.pooled_dim),
        "guidance": torch.tensor([3.5], device=device),
    }
