"""Low memory: blocks in slices, the host's estimate corrected, warnings before it is too late."""

from __future__ import annotations

import functools
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor, nn

from ...plan.slices import slice_size
from ..core.blocks import BLOCK_KEY, BlockReplace, RunningBlock, runs_foreign
from ..core.calls.model_call import RECORDER_KEY
from ..core.patch import REPORT_KEY, settings_of, with_settings
from ..core.report import RunReport
from ..families import HostBlocks, HostFamily, family_of, plain_module, require_family
from ..slicing.feed_forward import MLPCall, in_slices
from ..slicing.sliced import BlockArgs
from .estimate import corrected_shape
from .warnings import warnings

MEMORY_KEY = "clear_low_memory"
"""Where `LowMemory` lies in a model's transformer_options."""

MEMORY_CALL_KEY = "clear_low_memory_call"


@dataclass(frozen=True)
class LowMemory:
    """What the node asks for.

    Attributes:
        slice_tokens: Tokens that the linear layers take at a time, 0 for the automatic choice.
    """

    slice_tokens: int = 0


@dataclass(frozen=True, eq=False)
class MemoryCall:
    """What the blocks of one model call need to know.

    Attributes:
        asked: Of the node.
        model: The diffusion model, as it was before it was compiled.
        report: Collects what happened, or None outside a sampling run.
        results: What the last block returned.
    """

    asked: LowMemory
    model: nn.Module
    report: RunReport | None
    results: list[BlockArgs] = field(default_factory=list)

    def forget(self) -> None:
        """Empty the last block's result, when the next one begins.

        The host has taken the tensors out of it, but keeps it until the next block is done: for the
        first single block this is one more hidden tensor.
        """
        while self.results:
            self.results.pop().clear()


def with_low_memory(
    model: ModelPatcher, slice_tokens: int = 0, node_id: str | None = None
) -> ModelPatcher:
    """Return a clone of the model whose blocks are computed in slices.

    Args:
        model: A MODEL, left as it is.
        slice_tokens: Tokens that the linear layers take at a time, 0 for the automatic choice.
        node_id: The node that shows the report.

    Raises:
        ValueError: The model's architecture is not supported, or its blocks cannot be sliced.
    """
    family = require_family(model)
    if not any(blocks.sliced or blocks.feed_forward for blocks in family.blocks):
        raise ValueError(
            f"CLEAR Low Memory cannot compute the blocks of {family.title} models in slices. "
            "Remove it from this model."
        )
    model = with_settings(model, node_id=node_id, about="memory:")
    options = model.model_options["transformer_options"]
    if MEMORY_KEY not in options:
        for kind, wrapper in (
            (WrappersMP.PREPARE_SAMPLING, prepare),
            (WrappersMP.APPLY_MODEL, slice_blocks),
        ):
            add_wrapper_with_key(
                kind, MEMORY_KEY, wrapper, model.model_options, is_model_options=True
            )
    options[MEMORY_KEY] = LowMemory(slice_tokens)
    return model


def prepare(
    executor: Any, model: ModelPatcher, noise_shape: Any, conds: Any, *args: Any, **kwargs: Any
) -> Any:
    """Load the model with a corrected estimate, which the host makes from the shape alone."""
    given = kwargs.get("model_options") or model.model_options
    options = given.get("transformer_options", {})
    asked: LowMemory | None = options.get(MEMORY_KEY)
    if asked is None:
        return executor(model, noise_shape, conds, *args, **kwargs)
    report: RunReport | None = options.get(REPORT_KEY)
    estimate = corrected_shape(model, noise_shape, settings_of(model), asked.slice_tokens)
    if report is not None:
        report.note(f"memory: {estimate.describe()}")
    loaded = executor(model, estimate.shape, conds, *args, **kwargs)
    for warning in warnings(model, noise_shape):
        if report is not None:
            report.warn(warning)
    return loaded


def slice_blocks(
    executor: Any,
    x: Tensor,
    t: Tensor,
    c_concat: Tensor | None = None,
    c_crossattn: Tensor | None = None,
    control: Any = None,
    transformer_options: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Tensor:
    """Replace the blocks in the options of one model call, inside of what replaces them already."""
    options = dict(transformer_options or {})
    model = executor.class_obj.diffusion_model
    family = family_of(model)
    report: RunReport | None = options.get(REPORT_KEY)
    if family is not None and MEMORY_KEY in options and _run_by_others(family, model):
        # It may leave the options out, by which a block knows its call.
        if report is not None:
            report.note(
                "memory: blocks whole: another node runs them (TeaCache, PuLID, a block cache)"
            )
    elif family is not None and MEMORY_KEY in options:
        plain = plain_module(model)
        options[MEMORY_CALL_KEY] = MemoryCall(options[MEMORY_KEY], plain, report)
        options["patches_replace"] = _with_slices(options.get("patches_replace", {}), family, plain)
        pictures = family.latent_shape(x, kwargs)[0]
        with _mlps_in_slices(family, options[MEMORY_CALL_KEY], pictures):
            return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


@contextmanager
def _mlps_in_slices(family: HostFamily, call: MemoryCall, pictures: int) -> Generator[None]:
    """Compute the MLPs in slices of the blocks that are not computed so as a whole."""

    def told(kind: HostBlocks, name: str, how: str) -> None:
        if call.report is not None and name == kind.feed_forward[0]:
            call.report.note(f"memory: {kind.kind} blocks' MLPs {how}")

    with ExitStack() as mlps:
        for kind in family.blocks:
            for block in [] if kind.sliced else kind.of(call.model):
                for name in kind.feed_forward if kind.is_own(block) else ():
                    mlp = plain_module(block).get_submodule(name)
                    rows = int(family.layers.times(f"{kind.path}.{name}", call.model))
                    note, size = functools.partial(told, kind, name), call.asked.slice_tokens
                    mlps.enter_context(in_slices(mlp, MLPCall(size, pictures, rows, note)))
        yield


def _run_by_others(family: HostFamily, model: nn.Module) -> bool:
    return runs_foreign(family, model) or not family.runs_own_lists(plain_module(model))


def _with_slices(
    patches_replace: dict[str, Any], family: HostFamily, model: nn.Module
) -> dict[str, Any]:
    blocks: dict[Any, BlockReplace] = dict(patches_replace.get("dit", {}))
    for kind in family.blocks:
        for index in range(len(kind.of(model)) if kind.sliced else 0):
            previous = blocks.get((kind.hook, index))
            replace = _replace(kind, index)
            blocks[kind.hook, index] = (
                functools.partial(_inside, previous, replace) if previous else replace
            )
    return {**patches_replace, "dit": blocks}


@functools.cache
def _replace(kind: HostBlocks, index: int) -> BlockReplace:
    """Return what computes one block; always the same, because torch.compile asks for that."""

    def replace(args: BlockArgs, extra: dict[str, Any]) -> BlockArgs:
        call: MemoryCall = args["transformer_options"][MEMORY_CALL_KEY]
        sliced = kind.sliced
        assert sliced is not None
        block = plain_module(kind.of(call.model)[index])
        # Its own forward does not run, where hooks would name it to the attention.
        running = {BLOCK_KEY: RunningBlock(kind, index)}
        named = {**args, "transformer_options": {**args["transformer_options"], **running}}
        size = slice_size(args["img"].shape[1], call.asked.slice_tokens)
        why = sliced.why_not(block, args) or _why_whole(args, size)
        if call.report is not None:
            done = f"whole: {why}" if why else f"in slices of {size} tokens"
            call.report.note(f"memory: {kind.kind} blocks {done}")
        call.forget()
        result = extra["original_block"](args) if why else sliced.compute(block, named, size)
        call.results.append(result)
        return result

    untraced: Any = torch.compiler.disable(replace)
    return untraced


def _inside(
    previous: BlockReplace, replace: BlockReplace, args: BlockArgs, extra: dict[str, Any]
) -> BlockArgs:
    """Let what replaced the block before us go on: its original block is in slices."""
    return previous(args, {**extra, "original_block": lambda args: dict(replace(args, extra))})


def _why_whole(args: BlockArgs, size: int) -> str | None:
    if torch.is_grad_enabled():
        return "gradients are computed"
    if args["transformer_options"].get(RECORDER_KEY) is not None:
        return "the attention's outputs are recorded as the host makes them"
    tokens = args["img"].shape[1]
    return f"{tokens} tokens are one slice" if tokens <= size else None
