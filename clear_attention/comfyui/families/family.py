"""HostFamily: what the pack needs to know of the host's class for a model family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...families.family import Family
from ...families.network import Network
from ..slicing.sliced import Sliced


@dataclass(frozen=True)
class HostBlocks:
    """The blocks of one kind in the host's model.

    Attributes:
        kind: As in `Family.kinds`.
        path: Of the model's list of them.
        hook: Under which name the host's ``patches_replace`` lists them, or None.
        sliced: How CLEAR Low Memory computes them in slices, or None.
        attends_twice: Whether a block also has the attention that is ``inside`` this kind.
        block: Name of the host's class for a block, by which it is found where another node has
            put something of its own into the list.
    """

    kind: str
    path: str
    hook: str | None = None
    sliced: Sliced | None = None
    attends_twice: Callable[[Any], bool] = lambda block: False
    block: str = ""

    def of(self, model: nn.Module) -> list[nn.Module]:
        """List the model's blocks; ControlNets of a family may have none of a kind.

        A first-block cache puts one module in place of all blocks, of both kinds, and runs them
        itself: they are listed where they are. Anything that holds no block counts as one itself.
        """
        listed = self.listed(model)
        blocks = [own for one in listed for own in self._inside(one) or [one]]
        return blocks or self._inside(model)

    def listed(self, model: nn.Module) -> list[nn.Module]:
        """List what the host runs for blocks of this kind, whatever other nodes put there."""
        return list(getattr(model, self.path, ()))

    def is_own(self, block: nn.Module) -> bool:
        """Return whether a block is of the host's class, or derived from it."""
        types = type(plain_module(block)).__mro__
        return not self.block or any(
            one.__name__ == self.block and one.__module__.startswith("comfy.") for one in types
        )

    def _inside(self, module: nn.Module) -> list[nn.Module]:
        if not self.block:
            return []
        if self.is_own(module):
            return [module]
        return [one for one in module.modules() if self.is_own(one)]


@dataclass(frozen=True)
class Embedder:
    """Where the host's model turns position ids into rotations.

    Attributes:
        path: Of the module that does, from ids ``[B, L, axes]`` to ``[B, 1, L, D / 2, 2, 2]``.
        axes: Of the ids: the one that counts rows and the one that counts columns.
        process: The method that makes a picture's tokens and ids, or None where ids come from
            within the model's forward.
    """

    path: str
    axes: tuple[int, int]
    process: str | None = None


@dataclass(frozen=True)
class HostFamily:
    """A model family in the host.

    Attributes:
        data: What needs no host.
        matches: Whether a diffusion model belongs to it.
        blocks: In the order in which they run.
        dimensions: Reads the arguments of `Family.network` off the model's layers.
        embedder: Of rotary positions, or None where the pack cannot reach them.
        references: Argument of a model call that holds the latents of reference pictures.
        runner: The method that runs the blocks, which other nodes are known to replace.
        names_blocks_since: The first host version that tells the attention which block is running,
            or None.
    """

    data: Family
    matches: Callable[[nn.Module], bool]
    blocks: tuple[HostBlocks, ...]
    dimensions: Callable[[Any], Mapping[str, int]]
    embedder: Embedder | None = None
    references: str | None = None
    runner: str | None = None
    names_blocks_since: tuple[int, ...] | None = None

    @property
    def title(self) -> str:
        """What users call it."""
        return self.data.title

    def patch(self, model: nn.Module) -> int:
        """Return the edge of a token of a model in latent pixels."""
        return int(getattr(model, "patch_size", self.data.patch))

    def token_px(self, model: nn.Module) -> int:
        """Return the edge of a token of a model in pixels."""
        return self.patch(model) * self.data.latent_px

    def network(self, model: nn.Module) -> Network:
        """Return a model's dimensions."""
        return self.data.network(**self.dimensions(model))

    def block_counts(self, model: nn.Module) -> dict[str, int]:
        """Count the attentions of each kind of a model, which are those of its checkpoints."""
        by_kind = {blocks.kind: blocks for blocks in self.blocks}
        counts: dict[str, int] = {}
        for kind in self.data.kinds:
            blocks = by_kind[kind.inside or kind.name]
            has_it = [not kind.inside or blocks.attends_twice(one) for one in blocks.of(model)]
            if any(has_it) or not kind.inside:
                counts[kind.name] = sum(has_it)
        return counts

    def attends_twice(self, model: nn.Module) -> bool:
        """Return whether some block of a model also attends to the image alone."""
        return any(
            blocks.attends_twice(block) for blocks in self.blocks for block in blocks.of(model)
        )

    def runs_own_lists(self, model: nn.Module) -> bool:
        """Return whether a model's lists of blocks hold these blocks, and not a node's module."""
        return all(blocks.of(model) == blocks.listed(model) for blocks in self.blocks)

    def reference_latents(self, arguments: Mapping[str, Any]) -> list[Tensor]:
        """Return the latents of the reference pictures among a model call's arguments."""
        return list(arguments.get(self.references) or ()) if self.references else []


def plain_module(diffusion_model: nn.Module) -> nn.Module:
    """Return the module that torch.compile has wrapped, or the module itself."""
    return getattr(diffusion_model, "_orig_mod", diffusion_model)
