"""A teacher in main memory: the weights of a layer come to the device while the layer computes.

The host does so with models that do not fit: a layer casts its weights to the device of its input.
Autograd keeps such a copy for the backward pass, so that in the end all would be on the device;
where blocks are recomputed, the copies of a block are freed when it ends.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import comfy.model_management
from comfy.model_patcher import ModelPatcher

from ..families import plain_module, require_family

EVERYTHING = 1e32
"""More bytes than any model has."""

COMPUTED = 2
"""Bytes of a number that a layer computes with, at least: fp8 weights are cast on the device."""


def require_offloadable(model: ModelPatcher) -> None:
    """Check that the weights of a model may stay in main memory.

    Raises:
        ValueError: The host pages them itself, into memory that it may reuse before autograd does.
    """
    if getattr(model, "is_dynamic", lambda: False)():
        raise ValueError(
            "training.offload needs a model whose weights ComfyUI does not page itself: start it "
            "without dynamic VRAM."
        )


def load(patcher: ModelPatcher) -> None:
    """Load a model with its weights in main memory, from where the host's layers fetch them."""
    comfy.model_management.load_models_gpu([patcher])
    patcher.partially_unload(patcher.offload_device, EVERYTHING)


@contextmanager
def on_one_stream() -> Generator[None]:
    """Let the host fetch weights on the stream that computes, for the length of the ``with``.

    On streams of its own, it reuses the memory of weights once the forward pass has read them, but
    autograd reads them again in the backward pass.
    """
    with host_switch("NUM_STREAMS", 0):
        yield


@contextmanager
def host_switch(name: str, value: Any) -> Generator[None]:
    """Set what the host's model management has under a name; hosts without it stay as they are."""
    management = comfy.model_management
    if not hasattr(management, name):
        yield
        return
    before = getattr(management, name)
    setattr(management, name, value)
    try:
        yield
    finally:
        setattr(management, name, before)


def bytes_on_device(model: ModelPatcher) -> int:
    """Return what of such a model is on the device at once: its largest block, as it computes."""
    network = plain_module(model.model.diffusion_model)
    blocks = [block for each in require_family(model).blocks for block in each.of(network)]
    return max(
        sum(p.numel() * max(COMPUTED, p.element_size()) for p in block.parameters())
        for block in blocks
    )
