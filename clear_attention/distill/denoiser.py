"""What the trainer asks of a model; `clear_attention.comfyui` answers for ComfyUI's own classes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol

from torch import Tensor, nn

from ..families.names import Block, ModelSize, NameTable
from ..window import Window
from .data.shards import Samples


@dataclass(frozen=True, eq=False)
class Local:
    """The student's attention.

    Attributes:
        window: The disc of an image token.
        pooling_weights: ``[factor, factor]`` by block, with a gradient; empty without pooling.
        backend: Name of the backend, or "auto".
        radii: Radius of the blocks whose disc is another one.
    """

    window: Window
    pooling_weights: Mapping[Block, Tensor] = field(default_factory=dict)
    backend: str = "auto"
    radii: Mapping[Block, int] = field(default_factory=dict)

    def window_of(self, block: Block) -> Window:
        """Return the disc of a block."""
        return replace(self.window, radius=self.radii.get(block, self.window.radius))


@dataclass(eq=False)
class Recorder:
    """Keeps the attention outputs ``[B, L, H D]`` of some blocks by their names.

    Keyed by block, so that those of two runs cannot be paired wrongly. A block that is computed
    again for the backward pass does not replace what it gave the first time.
    """

    blocks: frozenset[Block]
    outputs: dict[Block, Tensor] = field(default_factory=dict)

    def add(self, block: Block | None, output: Tensor) -> None:
        """Take the attention output of a block."""
        if block in self.blocks:
            self.outputs.setdefault(block, output)


class Denoiser(Protocol):
    """A diffusion model that predicts the velocity of a rectified flow."""

    @property
    def network(self) -> nn.Module:
        """The network, whose submodules have the host's names."""
        ...

    @property
    def table(self) -> NameTable:
        """Names of its attention projections."""
        ...

    @property
    def size(self) -> ModelSize:
        """Its width and number of blocks."""
        ...

    @property
    def fingerprint(self) -> str:
        """A checksum of what it computes, for runs to know their teacher again."""
        ...

    def latent_in(self, latent: Tensor) -> Tensor:
        """Scale latents from the VAE's range to the network's."""
        ...

    def velocity(
        self,
        noisy: Tensor,
        sigma: Tensor,
        samples: Samples,
        *,
        guidance: float,
        local: Local | None = None,
        recorder: Recorder | None = None,
    ) -> Tensor:
        """Predict the velocity.

        Args:
            noisy: ``[B, C, H, W]`` in the network's range.
            sigma: ``[B]`` noise levels in (0, 1].
            samples: The conditioning; their latents are not looked at.
            guidance: For guidance-distilled models.
            local: The student's attention, or None for full attention.
            recorder: Gets attention outputs.

        Returns:
            ``[B, C, H, W]``.
        """
        ...

    def training(self, checkpointing: bool = False) -> AbstractContextManager[None]:
        """Let gradients flow through the network: around the forward and the backward pass.

        Args:
            checkpointing: Recompute blocks in the backward pass.
        """
        ...
