"""Which transformer block is running."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import nn

from ...layout import TokenLayout
from ..families.family import Family, family_of, plain_module, require_family
from . import host
from .settings import Block

BlockReplace = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


def running_block(
    transformer_options: Mapping[str, Any], layout: TokenLayout | None = None
) -> Block | None:
    """Return the block that calls the attention, or None where nobody says.

    Args:
        transformer_options: Of the attention call.
        layout: Of its tokens. A joint block that attends to the image alone counts as a block of
            its own kind, ``image``.
    """
    if "block_index" not in transformer_options:
        return None
    kind, index = str(transformer_options["block_type"]), int(transformer_options["block_index"])
    if kind == "joint" and layout is not None and layout.text == 0:
        kind = "image"
    return kind, index


def block_counts(model: ModelPatcher) -> dict[str, int]:
    """Count the blocks of each kind of a MODEL."""
    diffusion_model = plain_module(model.get_model_object("diffusion_model"))
    return require_family(model).blocks(diffusion_model)


def name_blocks(transformer_options: dict[str, Any], diffusion_model: nn.Module) -> None:
    """Make a host that does not name its running block do so, in this call's options only."""
    family = family_of(diffusion_model)
    if family is None or _names_blocks(family):
        return
    counts = family.blocks(plain_module(diffusion_model))
    replace = dict(transformer_options.get("patches_replace", {}))
    replace["dit"] = dict(replace.get("dit", {}))
    for kind, hook in family.hooks.items():
        for index in range(counts[kind]):
            key = (hook, index)
            replace["dit"][key] = _naming((kind, index), replace["dit"].get(key))
    transformer_options["patches_replace"] = replace


def runs_foreign(family: Family, diffusion_model: nn.Module) -> bool:
    """Tell whether another node put its own method in place of the one that runs the blocks.

    TeaCache and PuLID do. Theirs give the blocks no options, or do not name the running one.
    """
    runner = getattr(plain_module(diffusion_model), family.runner)
    return not str(getattr(runner, "__module__", "")).startswith("comfy.")


@contextmanager
def tell_blocks(
    family: Family, diffusion_model: nn.Module, options: Mapping[str, Any]
) -> Generator[None]:
    """Give a call's options and their own name to blocks that are run without, during the call.

    Args:
        family: Of the diffusion model.
        diffusion_model: The one that runs.
        options: Of the call.
    """

    def told(kind: str, index: int, given: Mapping[str, Any]) -> dict[str, Any]:
        return {**options, **given, "block_type": kind, "block_index": index}

    with ExitStack() as hooks:
        for kind in family.hooks:
            for index, block in enumerate(getattr(plain_module(diffusion_model), f"{kind}_blocks")):
                # Nodes that bring blocks of their own may have some that take no options.
                taken = inspect.signature(plain_module(block).forward).parameters
                if taken.keys() & {"transformer_options", "kwargs"}:
                    hooks.enter_context(options_changed(block, partial(told, kind, index)))
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


def _names_blocks(family: Family) -> bool:
    since = family.names_blocks_since
    return since is not None and host.version() >= since


def _naming(block: Block, previous: BlockReplace | None) -> BlockReplace:
    def replace(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        options = dict(args["transformer_options"])
        options["block_type"], options["block_index"] = block
        args = {**args, "transformer_options": options}
        return previous(args, extra) if previous else extra["original_block"](args)

    return replace
