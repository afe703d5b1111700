"""Attention calls to test with, the ways to compute them, and how exact the results must be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from hypothesis import strategies as st
from torch import Tensor

from clear_attention import Pooling, TokenLayout, Window, attention, partial
from clear_attention.backends import BACKENDS, masked, strips

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True)
class Case:
    """One call, from which its tensors follow.

    Attributes:
        layout: where the tokens lie.
        radius: of the window.
        wraps: whether it wraps around vertically and horizontally.
        factor: of the pooled branch, 0 for none.
        scale: of the scores, or None.
        batch: number of sequences.
        heads: number of heads.
        head_dim: width of a head.
        dtype: of q, k and v.
        strides: name of a function of `STRIDES`.
        seed: of the random numbers.
    """

    layout: TokenLayout
    radius: int
    factor: int = 0
    scale: float | None = None
    batch: int = 1
    heads: int = 2
    head_dim: int = 16
    dtype: torch.dtype = torch.float32
    strides: str = "contiguous"
    seed: int = 0
    wraps: tuple[bool, bool] = (False, False)

    @property
    def geometry(self) -> tuple[TokenLayout, Window]:
        """What `attention` takes behind the tensors."""
        return self.layout, Window(self.radius, *self.wraps)

    @property
    def options(self) -> dict[str, Any]:
        """What `attention` takes by keyword."""
        return {"pooling": self.pooling(), "scale": self.scale}

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k and v."""
        shape = (self.batch, self.heads, self.layout.tokens, self.head_dim)
        generator = torch.Generator().manual_seed(self.seed)
        q, k, v = (torch.randn(shape, generator=generator).to(self.dtype) for _ in range(3))
        as_strided = STRIDES[self.strides]
        return as_strided(1.5 * q), as_strided(k), as_strided(v)

    def pooling(self) -> Pooling | None:
        """Return the pooled branch with weights of its own for each place in a cell."""
        if not self.factor:
            return None
        generator = torch.Generator().manual_seed(self.seed + 1)
        weight = torch.rand(self.factor, self.factor, generator=generator) + 0.2
        return Pooling(self.factor, weight / self.factor**2)


def _token_major(x: Tensor) -> Tensor:
    """The order that a linear layer leaves: ``[B, L, H, D]``."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def _fused(x: Tensor) -> Tensor:
    """The view of v that FLUX's single blocks hand over: a token every 7 hidden sizes."""
    batch, heads, tokens, head_dim = x.shape
    fused = torch.zeros(batch, tokens, 7, heads, head_dim, dtype=x.dtype)
    fused[:, :, 2] = x.transpose(1, 2)
    return fused[:, :, 2].transpose(1, 2)


def _spread(x: Tensor) -> Tensor:
    """Every second element of a wider tensor."""
    return x.repeat_interleave(2, -1)[..., ::2]


STRIDES = {
    "contiguous": lambda x: x,
    "token_major": _token_major,
    "fused": _fused,
    "spread": _spread,
}


@st.composite
def cases(draw: st.DrawFn, **fixed: Any) -> Case:
    """Draw a case; keyword arguments fix attributes."""
    layout = TokenLayout(
        text=draw(st.integers(0, 9)),
        height=draw(st.integers(1, 18)),
        width=draw(st.integers(1, 18)),
        extra=draw(st.integers(0, 5)),
    )
    drawn = Case(
        layout=layout,
        radius=draw(st.one_of(st.integers(1, 6), st.integers(7, 20))),
        factor=draw(st.integers(0, 5)),
        scale=draw(st.sampled_from((None, 0.1, 0.5))),
        batch=draw(st.integers(1, 2)),
        heads=draw(st.integers(1, 3)),
        head_dim=draw(st.sampled_from((8, 16, 24))),
        dtype=draw(st.sampled_from(DTYPES)),
        strides=draw(st.sampled_from(sorted(STRIDES))),
        seed=draw(st.integers(0, 99)),
        wraps=draw(st.tuples(st.booleans(), st.booleans())),
    )
    return replace(drawn, **fixed)


# Those of Triton, interpreted step by step, are too slow for all of these tests.
ELSEWHERE = {"triton", "triton_int8", "reference"}

# Way to compute attention -> the backend and what is changed in it, so that small grids show what
# large ones and other devices do.
WAYS: dict[str, tuple[str, dict[Any, dict[str, Any]]]] = {
    **{name: (name, {}) for name in BACKENDS if name not in ELSEWHERE},
    "masked in bands": ("masked", {masked: {"MASK_ELEMENTS": 4000}}),
    "masked without fused attention": (
        "masked",
        {partial: {"SOURCES": (partial.Plain,), "PLAIN_SCORES": 50_000}},
    ),
    "tiled as on a GPU": ("tiled", {strips: {"tile_size": lambda window, device: (16, 16)}}),
    "tiled oddly": ("tiled", {strips: {"tile_size": lambda window, device: (3, 5)}}),
    "tiled without fused attention": (
        "tiled",
        {partial: {"SOURCES": (partial.Plain,), "PLAIN_SCORES": 50_000}},
    ),
}


@contextlib.contextmanager
def computed(way: str) -> Iterator[str]:
    """Make the changes of a way, and give the name of its backend."""
    backend, changes = WAYS[way]
    with contextlib.ExitStack() as stack:
        for module, attributes in changes.items():
            stack.enter_context(patch.multiple(module, **attributes))
        yield backend


def attend(way: str, *args: Any, **kwargs: Any) -> Any:
    """Call `attention` in one of the `WAYS`."""
    with computed(way) as backend:
        return attention(*args, **kwargs, backend=backend)


def exactly(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Call the reference in float64."""
    return attention(q.double(), k.double(), v.double(), *args, **kwargs, backend="reference")


def assert_as_exact_as(actual: Tensor, coarse: Tensor, exact: Tensor, noise: float) -> None:
    """Assert that the error is at most twice that of the reference, with rounding on top.

    Args:
        actual: the result to judge.
        coarse: the reference's result in the same dtype.
        exact: the reference's result in float64, from the same inputs.
        noise: what another order of the sums may change.
    """
    assert (actual.dtype, actual.shape) == (coarse.dtype, exact.shape)
    rounding = torch.finfo(actual.dtype).eps * exact.abs().max().item()
    allowed = 2 * ((coarse.double() - exact).abs().max().item() + rounding + noise)
    error = (actual.double() - exact).abs().max().item()
    assert error <= allowed, f"error {error:.2e}, allowed {allowed:.2e}"


def out_noise(out: Tensor, exact: Tensor) -> float:
    """Return what the last bits of the scores, sums of some tens of products, do to the output."""
    return _last_bits(out) * exact.abs().max().item()


def lse_noise(q: Tensor) -> float:
    """Return the last bits, and the error of the CPU's fused attention in half precision.

    It takes exponentials as exact as its inputs; unlike outputs, their sum is not rounded.
    """
    return _last_bits(q) + torch.finfo(q.dtype).eps / 8


def _last_bits(like: Tensor) -> float:
    wide = torch.float64 if like.dtype == torch.float64 else torch.float32
    return 8 * torch.finfo(wide).eps
