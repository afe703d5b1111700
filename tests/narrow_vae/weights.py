"""The narrow VAE's weights, set by hand.

It keeps the mean colour of 8 x 8 pixels, which are the first three of the demo's 16 numbers, and
none of the waves. All else is small and random, so that every layer has an effect and every pixel
depends on those around it. It takes a twentieth of the demo VAE's time.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from demo.codec import taesd
from demo.codec.decoder_start import DOUBLINGS
from demo.codec.encoder import CENTRE, HALVINGS
from demo.codec.latents import COLOURS, FLUX_SCALE, MEAN_SPREAD
from demo.codec.taesd import convolution
from demo.codec.vae_file import SCALE, SHIFT

from .network import WIDTH

RANDOM = 0.005
"""Deviation of what is random: small beside the colours, far more than rounding."""
RGB = range(3)
TO_LATENTS = SCALE / FLUX_SCALE * COLOURS / torch.tensor(MEAN_SPREAD)[:, None]
"""Colours in [-1, 1] to what the decoder is given."""


def narrow_weights() -> dict[str, Tensor]:
    """Return both networks under the names that ComfyUI knows them by."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(taesd, "WIDTH", WIDTH)
        encoder, decoder = taesd.encoder(), taesd.decoder()
    set_encoder(encoder)
    set_decoder(decoder)
    return {
        **{f"taesd_encoder.{name}": weight for name, weight in encoder.state_dict().items()},
        **{f"taesd_decoder.{name}": weight for name, weight in decoder.state_dict().items()},
        "vae_scale": torch.tensor(SCALE),
        "vae_shift": torch.tensor(SHIFT),
    }


@torch.no_grad()
def set_encoder(network: nn.Sequential) -> None:
    """Let the first three numbers be what the demo's latents hold of mean colours."""
    fill(network, seed=0)
    convolution(network, 0).weight[(RGB, RGB, *CENTRE)] = 1
    for at in HALVINGS:  # with stride 2 and padding 1, a pair's pixels meet the places 1 and 2
        convolution(network, at).weight[RGB, RGB, 1:, 1:] = 0.25
    last = convolution(network, len(network) - 1)
    last.weight[(slice(3), slice(3), *CENTRE)] = 2 * TO_LATENTS
    bias(last)[:3] = -TO_LATENTS.sum(1)


@torch.no_grad()
def set_decoder(network: nn.Sequential) -> None:
    """Undo what the encoder does, but for the means."""
    fill(network, seed=1)
    first = convolution(network, 1)
    first.weight[(slice(3), slice(3), *CENTRE)] = TO_LATENTS.inverse() / 2
    bias(first)[:3] = 0.5
    for at in (*DOUBLINGS, len(network) - 1):
        convolution(network, at).weight[(RGB, RGB, *CENTRE)] = 1


def fill(network: nn.Module, seed: int) -> None:
    """Draw small weights."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.copy_(RANDOM * torch.randn(parameter.shape, generator=draw))


def bias(layer: nn.Conv2d) -> Tensor:
    """Return the bias of a layer that has one."""
    assert layer.bias is not None
    return layer.bias
