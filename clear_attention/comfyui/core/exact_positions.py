"""Exact position ids on hosts that compute them in the model's dtype."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

PROCESS = "diffusion_model.process_img"

ProcessImage = Callable[..., tuple[Tensor, Tensor]]


def make_positions_exact(model: ModelPatcher) -> None:
    """Make a cloned model compute its position ids in float32, where the host does not.

    Hosts before 0.3.72 compute them in the model's dtype: in bfloat16 integers above 256 collide,
    which is 4096 pixels.
    """
    process = model.get_model_object(PROCESS)
    if isinstance(process, functools.partial) or _is_exact(process):
        return
    model.add_object_patch(PROCESS, functools.partial(_exact, process))


def _is_exact(process: ProcessImage) -> bool:
    _, ids = process(torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16))
    return ids.dtype == torch.float32


def _exact(process: ProcessImage, x: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    tokens, _ = process(x, *args, **kwargs)
    _, ids = process(x.float(), *args, **kwargs)
    return tokens, ids
