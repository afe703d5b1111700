"""Where the training of the decoder starts: weights that tell every pixel where it is.

TAESD doubles pictures by repeating pixels, and convolutions treat all places alike. So a pixel
does not know which of the 8 x 8 of its latent pixel it is, unless by comparing neighbours, and
without that the waves in the latents cannot be drawn. Training finds it out late. Here it is set
by hand: a repeated pixel differs from the one before only if a new original begins there, so
comparing gives a *mark*, 1 or 0, on every other column and row. The first marks compare mixtures
of the latents, which are hardly ever equal side by side; later ones compare marks, which alternate.

Blocks begin as shortcuts, so latents and marks come through to the last layer from the first step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from demo.codec.taesd import LATENT_CHANNELS, WIDTH, Block, convolution, decoder

# Places in the 64 channels. What is not named learns freely.
LATENTS = (slice(0, 16), slice(16, 32))  # in two halves without a sign
MIXTURES = ((32, 33), (34, 35))  # of the latents, each in two halves without a sign
DIFFERENCES = {"x": (32, 33), "y": (34, 35)}  # in their place after the first doubling
MARKS = ({"x": 58, "y": 59}, {"x": 60, "y": 61}, {"x": 62, "y": 63})  # of the three doublings

DOUBLINGS = (7, 12, 17)  # the convolutions that follow them; a block comes next
BEFORE = {"x": (1, 0), "y": (0, 1)}  # the neighbour's place in a kernel
CENTRE = (1, 1)
SHARPNESS = 300.0  # the inverse of the smallest difference that counts; one level of 255 is 0.006

Sum = Sequence[tuple[int, float]]
"""Channels, each with its factor."""


@torch.no_grad()
def marking_decoder() -> nn.Sequential:
    """Make a decoder whose marks are set and whose other weights are random."""
    network = decoder()
    for block in network.modules():
        if isinstance(block, Block):
            clear(convolution(block.conv, 4), range(WIDTH))
    set_first_layer(convolution(network, 1))
    for doubling, at in enumerate(DOUBLINGS):
        compared = {axis: compared_by(doubling, axis) for axis in BEFORE}
        take_differences(convolution(network, at), compared, MARKS[:doubling])
        block = network[at + 1]
        assert isinstance(block, Block)
        set_marks(block, {axis: len(sums) for axis, sums in compared.items()}, MARKS[doubling])
    return network


def compared_by(doubling: int, axis: str) -> Sequence[Sum]:
    """List what the marks of a doubling compare: the mixtures, or the marks of the one before."""
    if doubling == 0:
        return [((plus, 1.0), (minus, -1.0)) for plus, minus in MIXTURES]
    return [((MARKS[doubling - 1][axis], 1.0),)]


def set_first_layer(first: nn.Conv2d) -> None:
    """Hand the latents on in halves without a sign, and mix them."""
    clear(first, range(MIXTURES[-1][-1] + 1))
    for half, sign in zip(LATENTS, (1, -1), strict=True):
        first.weight[(half, slice(None), *CENTRE)] = sign * torch.eye(LATENT_CHANNELS)
    for plus, minus in MIXTURES:
        mixture = torch.randn(LATENT_CHANNELS)
        first.weight[(plus, slice(None), *CENTRE)] = mixture / mixture.norm()
        first.weight[minus] = -first.weight[plus]


def take_differences(
    conv: nn.Conv2d, compared: Mapping[str, Sequence[Sum]], marks: Sequence[Mapping[str, int]]
) -> None:
    """Hand all channels on, but in place of some take differences to the pixel before.

    Args:
        conv: The convolution that follows a doubling.
        compared: For each axis the sums of channels whose differences are taken.
        marks: The marks that there are already; the channels of others stay empty.
    """
    clear(conv, range(WIDTH))
    taken = {channel for places in DIFFERENCES.values() for channel in places}
    empty = {channel for pair in MARKS[len(marks) :] for channel in pair.values()}
    for channel in set(range(WIDTH)) - taken - empty:
        conv.weight[(channel, channel, *CENTRE)] = 1
    for axis, sums in compared.items():
        for place, parts in zip(DIFFERENCES[axis], sums, strict=False):
            for channel, factor in parts:
                conv.weight[(place, channel, *CENTRE)] = factor
                conv.weight[(place, channel, *BEFORE[axis])] = -factor


def set_marks(block: Block, counts: Mapping[str, int], marks: Mapping[str, int]) -> None:
    """Compute ``1 - relu(1 - SHARPNESS * sum |difference|)`` with the three layers of a block.

    Args:
        block: The block after a doubling.
        counts: How many differences there are along each axis.
        marks: The channels to put the marks into.
    """
    first, second, third = (convolution(block.conv, at) for at in (0, 2, 4))
    assert second.bias is not None and third.bias is not None
    for unit, (axis, mark) in enumerate(marks.items()):
        hidden = range(4 * unit, 4 * unit + 4)
        clear(first, hidden)
        clear(second, [unit])
        for place in range(counts[axis]):
            for row, sign in zip(hidden[2 * place :], (1, -1), strict=False):
                first.weight[(row, DIFFERENCES[axis][place], *CENTRE)] = sign * SHARPNESS
        second.weight[(unit, hidden, *CENTRE)] = -1
        second.bias[unit] = 1
        third.weight[(mark, unit, *CENTRE)] = -1
        third.bias[mark] = 1


def clear(conv: nn.Conv2d, rows: Sequence[int]) -> None:
    """Set output channels to zero."""
    for parameter in conv.parameters():
        parameter[list(rows)] = 0
