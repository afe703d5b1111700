"""The bytes that a call of a model holds at its peak, beside the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..families.network import Blocks, Job, Live, Network
from ..window import Window
from .attention import backend_of, footprint_of
from .slices import slice_size

LATENTS = 10
"""Copies of the latent that sampler and model hold during a step, float32 (counted, Euler)."""


def memory(
    network: Network,
    job: Job,
    dtype: torch.dtype,
    device: torch.device,
    slice_tokens: int | None = None,
) -> int:
    """Return the bytes beside the weights at the peak of a call.

    Counts the tensors that the host's blocks hold at once; full attention counts as fused. Of a run
    that is full in a part of its calls, it is the peak of all.

    Args:
        network: The model's dimensions.
        job: The call.
        dtype: In which the model computes.
        device: Where it computes.
        slice_tokens: Tokens that the linear layers take at a time as CLEAR Low Memory computes the
            blocks, 0 for its automatic choice; None for whole blocks.
    """
    case = _Case(network, job, dtype, device)
    return case.beside_blocks + max(case.peak(blocks, slice_tokens) for blocks in network.blocks)


@dataclass(frozen=True)
class _Case:
    """One call of a model on a device."""

    network: Network
    job: Job
    dtype: torch.dtype
    device: torch.device

    @property
    def beside_blocks(self) -> int:
        """Bytes of the latents and of the positions, both in float32."""
        layout, network = self.job.layout, self.network
        latents = LATENTS * network.latent_values * layout.image
        return 4 * self.job.batch * (latents + network.position_values * layout.tokens)

    def peak(self, blocks: Blocks, slice_tokens: int | None) -> int:
        """Return the bytes at the peak of a block."""
        layout = blocks.layout(self.job.layout)
        tokens = layout.tokens if blocks.slices_text else layout.tokens - layout.text
        size = tokens if slice_tokens is None else slice_size(tokens, slice_tokens)
        if size >= tokens or not blocks.sliced:  # one slice: the host computes the block
            return max(
                self._bytes(blocks, moment, layout.tokens, whole=True) for moment in blocks.moments
            )
        return max(
            self._bytes(blocks, moment, layout.tokens, whole=blocks.sliced_mlp)
            + (self._bytes(blocks, moment.part, size, whole=False) if moment.part else 0)
            for moment in blocks.sliced
        )

    def _bytes(self, blocks: Blocks, live: Live, tokens: int, *, whole: bool) -> int:
        size = self.dtype.itemsize
        hidden, mlp = blocks.hidden or self.network.hidden, blocks.mlp or self.network.mlp
        # In float32 already, tensors are not copied to become float32.
        converted = live.float32 * hidden * 4 if size < 4 else 0
        a_token = size * (live.hidden * hidden + live.mlp * mlp) + converted
        attention = self._attention(live.attends == "image", whole) if live.attends else 0
        return self.job.batch * tokens * a_token + attention

    def _attention(self, image_only: bool, whole: bool) -> int:
        """Return the bytes that the attention of one block holds beside q, k and v.

        Args:
            image_only: Whether text takes no part.
            whole: Whether the host's block asks for a result in the order of its tokens, which
                slices do without.
        """
        job, layout = self.job, self.job.layout
        tokens = layout.image + layout.extra if image_only else layout.tokens
        width = math.prod(self.network.heads_of(image_only=image_only))
        output = job.batch * tokens * width * self.dtype.itemsize
        reordered = 2 * output if whole else output
        windows = {
            window
            for each in self.network.attentions
            if each.image_only == image_only
            for window in each.windows(job)
        }
        local = [self._local(one, image_only, reordered) for one in windows if one is not None]
        full = job.local_share < 1 or None in windows or not local
        return max(*local, reordered) if full and local else max(local, default=reordered)

    def _local(self, window: Window, image_only: bool, reordered: int) -> int:
        """Return the bytes that an attention with a window holds.

        Args:
            window: The disc.
            image_only: Whether text takes no part.
            reordered: Of a result in the order of the block's tokens.
        """
        backend = backend_of(self.network, self.job, window, self.dtype, self.device)
        where = (window, backend, self.dtype, self.device)
        found = footprint_of(self.network, self.job, *where, image_only=image_only)
        return found.memory if found.token_major else max(found.memory, reordered)
