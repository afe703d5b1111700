"""Which transformer block is running."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import nn

from . import host
from .families import plain_module
from .settings import Block

STREAMS = ("double", "single")

BlockReplace = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


def running_block(transformer_options: Mapping[str, Any]) -> Block | None:
    """Return the block that calls the attention, or None where the host does not say."""
    if "block_index" not in transformer_options:
        return None
    return str(transformer_options["block_type"]), int(transformer_options["block_index"])


def block_counts(model: ModelPatcher) -> dict[str, int]:
    """Count the blocks of each stream of a MODEL."""
    return _count(model.get_model_object("diffusion_model"))


def name_blocks(transformer_options: dict[str, Any], diffusion_model: nn.Module) -> None:
    """Make an old host name its running block as newer ones do, in this call's options only."""
    if host.version() >= host.NAMES_BLOCKS:
        return
    replace = dict(transformer_options.get("patches_replace", {}))
    replace["dit"] = dict(replace.get("dit", {}))
    for stream, count in _count(diffusion_model).items():
        for index in range(count):
            key = (f"{stream}_block", index)
            replace["dit"][key] = _naming((stream, index), replace["dit"].get(key))
    transformer_options["patches_replace"] = replace


def _count(diffusion_model: nn.Module) -> dict[str, int]:
    plain = plain_module(diffusion_model)
    return {stream: len(getattr(plain, f"{stream}_blocks")) for stream in STREAMS}


def _naming(block: Block, previous: BlockReplace | None) -> BlockReplace:
    def replace(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        options = dict(args["transformer_options"])
        options["block_type"], options["block_index"] = block
        args = {**args, "transformer_options": options}
        return previous(args, extra) if previous else extra["original_block"](args)

    return replace
