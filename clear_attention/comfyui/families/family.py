"""HostFamily: what the pack needs to know of the host's class for a model family."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from ...families.family import Family, Part
from ...families.network import Held, Network
from ..slicing.sliced import Sliced
from .cut import Cut
from .dimensions import dimensions as read_dimensions
from .embedder import Embedder
from .layers import Layers
from .modules import plain_module


@dataclass(frozen=True)
class HostBlocks:
    """The blocks of one kind in the host's model.

    Attributes:
        kind: As in `Family.kinds`.
        path: Of the model's list of them.
        hook: Under which name the host's ``patches_replace`` lists them, or None.
        sliced: How CLEAR Low Memory computes them in slices, or None.
        feed_forward: Paths of the MLPs inside a block, that of the image first, each of which
            computes every token for itself.
        held: Tensors that a block holds at once.
        attends_twice: Whether a block also has the attention that is ``inside`` this kind.
        block: Name of the host's class for a block, by which it is found where another node has
            put something of its own into the list.
        calls: The kinds of the picture's attentions, in the order in which a block calls them;
            any further call, such as one to the text, is left alone. Empty where all calls are of
            the block's kind.
        told_as: What the host itself calls the running block, where blocks are not given the
            options in which the pack could name them.
    """

    kind: str
    path: str
    hook: str | None = None
    sliced: Sliced | None = None
    attends_twice: Callable[[Any], bool] = lambda block: False
    block: str = ""
    calls: tuple[str, ...] = ()
    told_as: str = ""
    feed_forward: tuple[str, ...] = ()
    held: Held = field(default_factory=Held)

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
        found: Any = model
        for name in self.path.split("."):
            found = getattr(found, name, ())
        return list(found)

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
class HostFamily:
    """A model family in the host.

    Attributes:
        data: What needs no host.
        matches: Whether a diffusion model belongs to it.
        blocks: In the order in which they run.
        dimensions: Reads the arguments of `Family.network` off the model's layers; None for those
            of `network.transformer`.
        layers: Which tokens the model's layers are applied to.
        embedder: Of rotary positions, or None where the pack cannot reach them.
        theta: Path of the number that is the rotary base, where no module of its own makes
            rotations of positions; empty where there is none.
        references: Argument of a model call that holds what lies behind the grid: the latents of
            reference pictures, or their tokens ``[B, tokens, C]``.
        references_if: Tells from a model and a call's arguments whether it looks at them.
        patch_path: Attribute of a model that says the edge of a token in latent pixels, where this
            differs between models of the family.
        declines: Argument of a model call -> why it must be computed in full, where there is any.
        older: Hosts before this version have another order of tokens, this one.
        in_batch: Whether the frames of a latent are pictures of their own in the batch.
        sees_all: Whether the picture's own calls are those whose keys are all tokens; others in the
            same block, of text and references among themselves, have fewer.
        by_length: Whether any attention call whose tokens can hold the grid is the picture's. If
            not, only calls inside named blocks are.
        counts_by_mask: Whether the host counts the text's tokens by a mask, which must be there.
        forgets: Name of the method by which a model forgets what it keeps for a next run, which may
            have other weights.
        cut: Where several devices may share the tokens, or None where that is not known.
        net_cut: Likewise in a ControlNet of its class, whose residuals stay with the ranks.
        runner: The method that runs the blocks, which other nodes are known to replace.
        names_blocks_since: The first host version that tells the attention which block is running,
            in the words of `blocks`, or None.
    """

    data: Family
    matches: Callable[[nn.Module], bool]
    blocks: tuple[HostBlocks, ...]
    dimensions: Callable[[Any], Mapping[str, int]] | None = None
    layers: Layers = field(default_factory=Layers)
    embedder: Embedder | None = None
    theta: str = ""
    references: str = ""
    references_if: Callable[[Any, Mapping[str, Any]], bool] = lambda model, arguments: True
    patch_path: str = ""
    declines: Mapping[str, str] = field(default_factory=dict)
    older: tuple[tuple[int, ...], tuple[Part, ...]] | None = None
    in_batch: bool = False
    sees_all: bool = False
    by_length: bool = False
    counts_by_mask: bool = False
    forgets: str = ""
    cut: Cut | None = None
    net_cut: Cut | None = None
    runner: str | None = None
    names_blocks_since: tuple[int, ...] | None = None

    @property
    def title(self) -> str:
        """What users call it."""
        return self.data.title

    @property
    def has_rotary_base(self) -> bool:
        """Whether the pack can scale the base of rotary positions."""
        return self.embedder is not None or bool(self.theta)

    def patch(self, model: nn.Module) -> int:
        """Return the edge of a token of a model in latent pixels."""
        if not self.patch_path:
            return self.data.patch
        edge = getattr(model, self.patch_path)
        return int(edge if isinstance(edge, int) else edge[-1])  # of frames, rows and columns

    def order(self, version: tuple[int, ...]) -> tuple[Part, ...]:
        """Return the order of tokens in a version of the host."""
        return self.older[1] if self.older and version < self.older[0] else self.data.order

    def latent_shape(self, latent: Tensor, arguments: Mapping[str, Any]) -> tuple[int, ...]:
        """Return the shape of the picture that a model call computes.

        Args:
            latent: Of the call; several latents may be packed into one.
            arguments: Of the call.
        """
        shape = tuple((arguments.get("latent_shapes") or [latent.shape])[0])
        return (shape[0] * shape[2], shape[1], *shape[3:]) if self._is_folded(shape) else shape

    def _is_folded(self, shape: tuple[int, ...]) -> bool:
        return self.in_batch and len(shape) == 5

    @property
    def token_px(self) -> int:
        """Edge of a token in pixels: larger tokens of a family have finer latents."""
        return self.data.token_px

    def network(self, model: nn.Module) -> Network:
        """Return a model's dimensions.

        Raises:
            ValueError: Another node has put something else in place of the blocks.
        """
        read = self.dimensions or partial(read_dimensions, self)
        return self.data.network(**read(model))

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

    def kind_told(self, told: str) -> str:
        """Return the kind of what the host calls the running block."""
        return next((one.kind for one in self.blocks if told and one.told_as == told), told)

    def attends_twice(self, model: nn.Module) -> bool:
        """Return whether some block of a model also attends to the image alone."""
        return any(
            blocks.attends_twice(block) for blocks in self.blocks for block in blocks.of(model)
        )

    def runs_own_lists(self, model: nn.Module) -> bool:
        """Return whether a model's lists of blocks hold these blocks, and not a node's module."""
        return all(blocks.of(model) == blocks.listed(model) for blocks in self.blocks)

    def reference_tokens(self, model: nn.Module, arguments: Mapping[str, Any]) -> int:
        """Count the tokens of reference pictures behind the grid of a model call.

        Args:
            model: That is called.
            arguments: Of the call.
        """
        given = arguments.get(self.references)
        if given is None or not self.references_if(model, arguments):
            return 0
        if isinstance(given, Tensor):
            return given.shape[1]
        patch = self.patch(model)
        return sum(math.prod(tokens_of(latent.shape, patch)) for latent in given)

    def why_declined(self, arguments: Mapping[str, Any]) -> str | None:
        """Return why the arguments of a model call ask for full attention, or None."""
        return next(
            (why for one, why in self.declines.items() if arguments.get(one) is not None), None
        )


def tokens_of(latent: Sequence[int], patch: int) -> tuple[int, int, int]:
    """Return the frames, rows and columns of tokens of a latent.

    Args:
        latent: Shape of it, ``[B, C, height, width]`` or ``[B, C, frames, height, width]``.
        patch: Edge of a token in latent pixels.
    """
    frames = latent[2] if len(latent) > 4 else 1
    return frames, -(-latent[-2] // patch), -(-latent[-1] // patch)


def of_class(module: str, *names: str) -> Callable[[nn.Module], bool]:
    """Return what tells whether a model is of a class of the host, which a host may not have.

    Args:
        module: Such as ``comfy.ldm.lumina.model``.
        names: Of the class or of several.
    """

    def matches(model: nn.Module) -> bool:
        return any(
            one.__module__ == module and one.__name__ in names for one in type(model).__mro__
        )

    return matches
