"""Who takes part in the attention benchmark, as one ordered list."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu import original
from benchmarks.gpu.exact import Case, Sees
from clear_attention import attention
from clear_attention.backends import BACKENDS, Call

Prepare = Callable[[Case, Tensor, Tensor, Tensor], Callable[[], Tensor]]


@dataclass(frozen=True)
class Contestant:
    """One way to compute a layer.

    Attributes:
        name: Heads its column.
        sees: The question that it answers.
        why_not: Says why it cannot take part in a case with this q, or None.
        prepare: Returns the call to time, from the case and q, k, v ``[1, H, L, D]``.
        image_only: It has no text queries, and gives ``[1, H, H*W, D]``.
        approximate: Its error is shown, but is no mistake, and its work cannot be counted.
    """

    name: str
    sees: Sees
    why_not: Callable[[Case, Tensor], str | None]
    prepare: Prepare
    image_only: bool = False
    approximate: bool = False

    @property
    def windowed(self) -> bool:
        """Whether radius and pooling matter to it."""
        return self.sees is not Sees.FULL


def ours(name: str, approximate: bool = False) -> Contestant:
    """Return a backend of this library, whether or not there is one of that name.

    Args:
        name: Of the backend.
        approximate: Whether it rounds.
    """

    def why_not(case: Case, q: Tensor) -> str | None:
        if name not in BACKENDS:
            return "no such backend"
        if approximate and q.device.type == "cpu":
            return "interpreted, one kernel is enough"
        call = Call(case.layout, case.window, case.pooling, q.shape[-1] ** -0.5)
        return BACKENDS[name].why_not(q, call)

    def prepare(case: Case, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
        def run() -> Tensor:
            out = attention(q, k, v, case.layout, case.window, pooling=case.pooling, backend=name)
            assert isinstance(out, Tensor)
            return out

        return run

    return Contestant(name, Sees.CLEAR, why_not, prepare, approximate=approximate)


def _original_why_not(case: Case, q: Tensor) -> str | None:
    if case.text != original.TEXT:
        return f"written for {original.TEXT} text tokens"
    if q.device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    return None


def _full(case: Case, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
    return lambda: F.scaled_dot_product_attention(q, k, v)


def _kitchen_why_not(case: Case, q: Tensor) -> str | None:
    if importlib.util.find_spec("comfy_kitchen") is None:
        return "not installed"
    kitchen = _module("comfy_kitchen")
    if not hasattr(kitchen, "sol_attn"):
        return "this version has no sparse attention"
    if not kitchen.sol_attn_is_available(q.device):
        return "no compiled kernel for this device"
    return None if q.shape[-1] == 128 else "wants a head_dim of 128"


def _kitchen(case: Case, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
    """Run with what ComfyUI's Model Sparse Attention node has as its defaults."""
    kitchen = _module("comfy_kitchen")
    # It orders [B, L, H, D], and takes views.
    tokens_first = [x.transpose(1, 2) for x in (q, k, v)]
    return lambda: kitchen.sol_attn(*tokens_first, tau=1.3, token_aug=256).transpose(1, 2)


def _natten_why_not(case: Case, q: Tensor) -> str | None:
    if importlib.util.find_spec("natten") is None:
        return "not installed"
    return "it has no pooled keys" if case.factor else None


def _natten(case: Case, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
    natten = _module("natten")
    layout = case.layout
    # It orders [B, H*W as two axes, H, D], contiguous.
    grids = [
        x[:, :, layout.image_slice].transpose(1, 2).unflatten(1, (case.grid, case.grid))
        for x in (q, k, v)
    ]
    text = [x[:, :, layout.text_slice].transpose(1, 2).contiguous() for x in (k, v)]
    grids = [grid.contiguous() for grid in grids]
    edge = min(case.grid, 2 * case.radius - 1)

    def run() -> Tensor:
        out: Any = natten.na2d(
            *grids, kernel_size=edge, additional_keys=text[0], additional_values=text[1]
        )
        return out.flatten(1, 2).transpose(1, 2)

    return run


def _module(name: str) -> ModuleType:
    return importlib.import_module(name)


def _always(case: Case, q: Tensor) -> str | None:
    return None


CONTESTANTS: tuple[Contestant, ...] = (
    ours("triton"),
    ours("triton_int8", approximate=True),
    ours("flex"),
    ours("tiled"),
    Contestant("original FlexAttention", Sees.CLEAR, _original_why_not, original.prepare),
    Contestant("full, torch SDPA", Sees.FULL, _always, _full),
    Contestant(
        "comfy-kitchen sol_attn, approximates full",
        Sees.FULL,
        _kitchen_why_not,
        _kitchen,
        approximate=True,
    ),
    Contestant(
        "NATTEN, square window, no text queries",
        Sees.SQUARE,
        _natten_why_not,
        _natten,
        image_only=True,
    ),
)


def fused_kernel(q: Tensor) -> str:
    """Name the kernel that torch's own attention picks for full attention."""
    from torch.nn.attention import SDPBackend

    choose: Any = getattr(torch, "_fused_sdp_choice", None)  # private: it may go
    return SDPBackend(choose(q, q, q)).name if choose else "an unknown kernel"
