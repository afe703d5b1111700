"""TAESD's encoder with weights set by hand: it computes ``latents.encode``.

The first two halvings put 2 x 2 pixels side by side into channels, so that 3 channels become 48;
the third one projects 2 x 2 of those at once, that is 8 x 8 pixels. Every layer ends with a ReLU,
which colours in [0, 1] pass as they are; the projections do so in two halves without a sign, which
the last layer subtracts. So nothing is offset, and half-precision numbers lose no more than their
own rounding.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from demo.codec.latents import BLOCK, encode
from demo.codec.taesd import LATENT_CHANNELS, convolution, encoder

CENTRE = (1, 1)
COLOURS = 3
PHASES = tuple(itertools.product((0, 1), repeat=2))  # rows and columns of 2 x 2 pixels
HALVINGS = (2, 6, 10)  # where the encoder has them


@torch.no_grad()
def encoder_by_hand(scale: float, shift: float) -> nn.Sequential:
    """Make the encoder: ``[B, 3, 8 h, 8 w]`` in [0, 1] to ``(latents - shift) * scale``."""
    network = encoder()
    for parameter in network.parameters():
        parameter.zero_()
    first, *halvings, last = (convolution(network, at) for at in (0, *HALVINGS, len(network) - 1))
    first.weight[(range(COLOURS), range(COLOURS), *CENTRE)] = 1
    put_side_by_side(halvings[0], COLOURS)
    put_side_by_side(halvings[1], COLOURS * 4)
    project(halvings[2], responses() * scale)
    half = range(LATENT_CHANNELS)
    for sign, start in ((1, 0), (-1, LATENT_CHANNELS)):
        last.weight[(half, range(start, start + LATENT_CHANNELS), *CENTRE)] = sign
    assert last.bias is not None
    last.bias.copy_((black() - shift) * scale)
    return network


def put_side_by_side(halving: nn.Conv2d, channels: int) -> None:
    """Make of ``channels`` four times as many, one group for each of 2 x 2 pixels."""
    for group, (row, column) in enumerate(PHASES):
        # With stride 2 and padding 1, the pixels of a pair meet the kernel's places 1 and 2.
        to = range(group * channels, (group + 1) * channels)
        halving.weight[to, range(channels), 1 + row, 1 + column] = 1


def project(halving: nn.Conv2d, table: Tensor) -> None:
    """Set the last halving to project 8 x 8 pixels by a table ``[16, 3, 8, 8]``, in two halves."""
    places = itertools.product(PHASES, PHASES, PHASES)
    for (outer, middle, inner), colour in itertools.product(places, range(COLOURS)):
        row, column = (4 * o + 2 * m + i for o, m, i in zip(outer, middle, inner, strict=True))
        channel = (PHASES.index(middle) * 4 + PHASES.index(inner)) * COLOURS + colour
        taps = halving.weight[:, channel, 1 + outer[0], 1 + outer[1]]
        taps[:LATENT_CHANNELS] = table[:, colour, row, column]
        taps[LATENT_CHANNELS : 2 * LATENT_CHANNELS] = -table[:, colour, row, column]


def responses() -> Tensor:
    """Measure how ``encode`` answers to each colour of each pixel: ``[16, 3, 8, 8]``."""
    values = COLOURS * BLOCK**2
    grey = torch.full((values, BLOCK, BLOCK, COLOURS), 0.5)
    lit = grey + torch.eye(values).reshape(values, COLOURS, BLOCK, BLOCK).permute(0, 2, 3, 1) / 2
    answers = (encode(lit) - encode(grey)) * 2
    return answers.reshape(COLOURS, BLOCK, BLOCK, LATENT_CHANNELS).permute(3, 0, 1, 2)


def black() -> Tensor:
    """Encode black: ``[16]``."""
    return encode(torch.zeros(1, BLOCK, BLOCK, COLOURS)).flatten()
