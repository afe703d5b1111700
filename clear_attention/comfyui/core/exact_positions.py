"""Exact position ids on hosts that compute them in the model's dtype.

In bfloat16 integers above 256 collide: tokens beyond 4096 pixels would share their positions.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..families import Embedder, HostFamily, plain_module
from .geometry import Geometry

ProcessImage = Callable[..., tuple[Any, ...]]


def make_positions_exact(model: ModelPatcher, embedder: Embedder) -> None:
    """Make a cloned model compute its position ids in float32, where the host does not.

    Hosts before 0.3.72 do not for FLUX, and none does for Qwen-Image. Where ids come from within a
    forward, the embedder counts them anew.

    Raises:
        ValueError: The host has moved the embedder.
    """
    embedder.of(plain_module(model.get_model_object("diffusion_model")))
    if embedder.exact:
        return
    if embedder.process is None:
        path = f"diffusion_model.{embedder.path}"
        current = model.get_model_object(path)
        if not isinstance(current, ExactEmbedder):
            model.add_object_patch(path, ExactEmbedder(current, embedder.axes))
        return
    path = f"diffusion_model.{embedder.process}"
    process = model.get_model_object(path)
    if isinstance(process, functools.partial):
        return
    if "dtype" in inspect.signature(process).parameters:
        model.add_object_patch(path, functools.partial(_in_float32, process))
    elif not _is_exact(process, embedder):
        model.add_object_patch(path, functools.partial(_exact, process))


def _is_exact(process: ProcessImage, embedder: Embedder) -> bool:
    """Return whether ids are the same in bfloat16, also of more rows than that can count."""
    picture = torch.zeros(1, 1, *(1,) * embedder.frames, 1200, 2)
    (_, exact, *_), (_, ids, *_) = process(picture), process(picture.bfloat16())
    return ids.dtype == torch.float32 and torch.equal(ids, exact)


def _exact(process: ProcessImage, x: Tensor, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    tokens, _, *others = process(x, *args, **kwargs)
    _, ids, *_ = process(x.float(), *args, **kwargs)
    return tokens, ids, *others


def _in_float32(encode: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    return encode(*args, **{**kwargs, "dtype": torch.float32})


class ExactEmbedder(nn.Module):
    """A positional embedder around another one, to which it gives exact ids.

    Attributes:
        inner: The embedder.
        axes: Of the ids that count rows and columns.
        geometry: The grid of the model call that began last, or None before the first.
        wraps: Whether rows and columns of that call may wrap around.
    """

    inner: nn.Module

    def __init__(self, inner: nn.Module, axes: tuple[int, int]) -> None:
        super().__init__()
        # Past torch's registry of submodules, which would list what the model has already.
        object.__setattr__(self, "inner", inner)
        for name in {"dim", "theta", "axes_dim"} & vars(inner).keys():  # for those who read them
            object.__setattr__(self, name, getattr(inner, name))
        self.axes = axes
        self.geometry: Geometry | None = None
        self.wraps: tuple[bool, bool] = (True, True)

    def around(self, inner: nn.Module) -> ExactEmbedder:
        """Return the same around another embedder."""
        return ExactEmbedder(inner, self.axes)

    def exact(self, ids: Tensor) -> Tensor:
        """Return ids in float32 where they come in less, the grid's counted anew."""
        if ids.dtype.itemsize >= torch.float32.itemsize or self.geometry is None:
            return ids
        return exact_ids(ids, self.geometry, self.axes)

    def forward(self, ids: Tensor) -> Tensor:
        """Embed positions ``[B, L, axes]`` as rotations ``[B, 1, L, D / 2, 2, 2]``."""
        return self.inner(self.exact(ids))


def exact_ids(ids: Tensor, geometry: Geometry, axes: tuple[int, int]) -> Tensor:
    """Return ids in float32, those of the grid counted anew.

    Args:
        ids: ``[B, L, axes]``, of all tokens.
        geometry: Of the grid; ids of a sequence that cannot hold it are only cast.
        axes: Of the ids that count rows and columns.
    """
    exact = ids.to(torch.float32, copy=True)
    layout = geometry.layout(ids.shape[1])
    if layout is not None:
        height, width = layout.height, layout.width
        grid = exact[:, layout.image_slice].unflatten(1, (height, width))
        grid[..., axes[0]] = torch.arange(height, device=ids.device).float()[:, None]
        grid[..., axes[1]] = torch.arange(width, device=ids.device).float()
    return exact


def embedder_of(family: HostFamily, diffusion_model: nn.Module) -> ExactEmbedder | None:
    """Return the positional embedder of a model if it is ours."""
    if family.embedder is None:
        return None
    embedder = family.embedder.of(plain_module(diffusion_model))
    return embedder if isinstance(embedder, ExactEmbedder) else None


def set_grid(
    family: HostFamily, diffusion_model: nn.Module, geometry: Geometry, wraps: tuple[bool, bool]
) -> None:
    """Tell the positional embedder, if it is ours, the grid of the model call that begins.

    It is not taken back at the end: parts of a batch may run side by side on one embedder.
    """
    embedder = embedder_of(family, diffusion_model)
    if embedder is not None:
        embedder.geometry, embedder.wraps = geometry, wraps
