"""Which transformer block is running, and which of its attention calls are the picture's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import nn

from ...layout import TokenLayout
from ..core import host
from ..families import HostBlocks, HostFamily, plain_module, require_family
from .settings import Block

BlockReplace = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]

BLOCK_KEY = "clear_attention_block"
"""Where the `RunningBlock` lies in the transformer_options that a block is called with."""


@dataclass(eq=False)
class RunningBlock:
    """A block that runs now.

    Attributes:
        blocks: Of its kind.
        index: Among these.
        calls: How many attention calls it has begun.
    """

    blocks: HostBlocks
    index: int
    calls: int = 0

    @property
    def attention(self) -> Block | None:
        """The attention that was called last, or None where it is not the picture's own."""
        kinds = self.blocks.calls
        if not kinds:
            return self.blocks.kind, self.index
        return (kinds[self.calls - 1], self.index) if self.calls <= len(kinds) else None


def begun_anew(transformer_options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of a block for one more run of it, as it is computed again for gradients."""
    running: RunningBlock | None = transformer_options.get(BLOCK_KEY)
    anew = {} if running is None else {BLOCK_KEY: RunningBlock(running.blocks, running.index)}
    return {**transformer_options, **anew}


def running_block(
    transformer_options: Mapping[str, Any], family: HostFamily, layout: TokenLayout | None = None
) -> Block | None:
    """Return the block that calls the attention, or None where nobody says.

    Args:
        transformer_options: Of the attention call.
        family: Of the model. A second attention, to the image alone, may have a kind of its own.
        layout: Of the call's tokens.
    """
    running: RunningBlock | None = transformer_options.get(BLOCK_KEY)
    if running is not None:
        kind, index = running.attention or (running.blocks.kind, running.index)
    elif transformer_options.keys() >= {"block_type", "block_index"}:
        kind = family.kind_told(str(transformer_options["block_type"]))
        index = int(transformer_options["block_index"])
    else:
        return None
    image_only = layout is not None and layout.tokens == layout.image
    return family.data.kind_of(kind, image_only=image_only), index


def is_pictures(transformer_options: Mapping[str, Any], family: HostFamily) -> bool:
    """Return whether an attention call is the picture's own, and count it to its block.

    Calls outside of the family's blocks, and those to the text, are not: their lengths say nothing.

    Args:
        transformer_options: Of the attention call.
        family: Of the model.
    """
    running: RunningBlock | None = transformer_options.get(BLOCK_KEY)
    if running is not None:
        running.calls += 1
        return running.attention is not None
    told = transformer_options.get("block_type", "")
    return family.by_length or family.kind_told(told) != told


def block_counts(model: ModelPatcher) -> dict[str, int]:
    """Count the blocks of each kind of a MODEL."""
    diffusion_model = plain_module(model.get_model_object("diffusion_model"))
    return require_family(model).block_counts(diffusion_model)


def blocks_named(
    family: HostFamily, diffusion_model: nn.Module, options: dict[str, Any], needed: bool
) -> AbstractContextManager[None]:
    """Name the running block to the attention during a call, where the host does not.

    Args:
        family: Of the diffusion model.
        diffusion_model: The one that runs.
        options: Of the call; changed.
        needed: Whether the attention must know which block is running.
    """
    if not family.by_length or runs_foreign(family, diffusion_model):
        return tell_blocks(family, diffusion_model, options)
    if not family.runs_own_lists(plain_module(diffusion_model)):
        # The host would name the module that stands in place of the blocks.
        return tell_blocks(family, diffusion_model, options)
    if not needed or _names_blocks(family):
        return nullcontext()
    if any(blocks.hook is None for blocks in family.blocks):
        return tell_blocks(family, diffusion_model, options)
    name_blocks(family, diffusion_model, options)
    return nullcontext()


def name_blocks(
    family: HostFamily, diffusion_model: nn.Module, transformer_options: dict[str, Any]
) -> None:
    """Make a host that does not name its running block do so, in this call's options only."""
    replace = dict(transformer_options.get("patches_replace", {}))
    replace["dit"] = dict(replace.get("dit", {}))
    for blocks in family.blocks:
        for index in range(len(blocks.of(plain_module(diffusion_model)))):
            key = (blocks.hook, index)
            replace["dit"][key] = _naming((blocks.kind, index), replace["dit"].get(key))
    transformer_options["patches_replace"] = replace


def runs_foreign(family: HostFamily, diffusion_model: nn.Module) -> bool:
    """Tell whether another node put its own method in place of the one that runs the blocks.

    TeaCache and PuLID do. Theirs give the blocks no options, or do not name the running one.
    """
    if family.runner is None:
        return False
    runner = getattr(plain_module(diffusion_model), family.runner, None)
    return not str(getattr(runner, "__module__", "")).startswith("comfy.")


@contextmanager
def tell_blocks(
    family: HostFamily,
    diffusion_model: nn.Module,
    options: Mapping[str, Any],
    ours: Mapping[str, Any] | None = None,
) -> Generator[None]:
    """Give a call's options and their own name to blocks, whatever runs them, during the call.

    Args:
        family: Of the diffusion model.
        diffusion_model: The one that runs, or a ControlNet.
        options: Of the call, for blocks that are given none.
        ours: In place of what blocks are given, or None.
    """

    def told(blocks: HostBlocks, index: int, given: Mapping[str, Any]) -> dict[str, Any]:
        return {**options, **given, **(ours or {}), BLOCK_KEY: RunningBlock(blocks, index)}

    with ExitStack() as hooks:
        for blocks in family.blocks:
            for index, block in enumerate(blocks.of(plain_module(diffusion_model))):
                # Nodes that bring blocks of their own may have some that take no options.
                taken = inspect.signature(plain_module(block).forward).parameters
                if taken.keys() & {"transformer_options", "kwargs"}:
                    hooks.enter_context(options_changed(block, partial(told, blocks, index)))
        yield


@contextmanager
def options_changed(
    block: nn.Module, change: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> Generator[None]:
    """Change the `transformer_options` that a block is called with, which may be none."""

    def hand(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = kwargs.get("transformer_options") or {}
        return args, {**kwargs, "transformer_options": change(given)}

    hook = block.register_forward_pre_hook(hand, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _names_blocks(family: HostFamily) -> bool:
    since = family.names_blocks_since
    return since is not None and host.version() >= since


def _naming(block: Block, previous: BlockReplace | None) -> BlockReplace:
    def replace(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        options = dict(args["transformer_options"])
        options["block_type"], options["block_index"] = block
        args = {**args, "transformer_options": options}
        return previous(args, extra) if previous else extra["original_block"](args)

    return replace
