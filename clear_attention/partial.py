"""Attention over a part of the keys, and the exact merge of such parts by log-sum-exp.

softmax over a union of key sets equals the sets' own softmax results, weighted by
exp(lse_part - lse_union). Each source below returns the pair (out, lse) that this needs.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .precision import accumulation_dtype

# The scores of one chunk of the plain source: 2**24 float32 values are 64 MiB.
PLAIN_SCORES = 2**24


class Part(NamedTuple):
    """Attention over some of the keys.

    Attributes:
        out: ``[B, H, M, D]`` in the query's dtype, normalised over these keys.
        lse: ``[B, H, M]``, natural log of the sum of exp(scores), float32 (float64 for float64).
    """

    out: Tensor
    lse: Tensor


class Source(Protocol):
    """One way to compute a `Part`."""

    @staticmethod
    def why_not(q: Tensor) -> str | None: ...

    @staticmethod
    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Part: ...


def attend_part(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, bias: Tensor | None = None
) -> Part:
    """Attend to these keys with the first source that accepts the call.

    Args:
        q: ``[B, H, M, D]``, any strides with a contiguous last dimension.
        k: ``[B, H, N, D]``, likewise; overlapping views are fine.
        v: ``[B, H, N, D]``, likewise.
        scale: Factor on the scores.
        bias: Added to the scaled scores, broadcastable to ``[B, H, M, N]``, in the dtype of `q`.
            Best made by `aligned_zeros`: CUDA's fused kernels need a copy otherwise.

    A query for which every key is masked gets an undefined row.
    """
    for source in SOURCES:
        if source.why_not(q) is None:
            return source.attend(q, k, v, bias, scale)
    raise AssertionError("The plain source accepts every call.")


def merge_parts(one: Part, other: Part) -> Part:
    """Merge attention over two disjoint key sets into attention over their union."""
    # exp(other.lse - lse) would see what lse lost in rounding.
    share = torch.sigmoid(other.lse - one.lse).unsqueeze(-1)
    out = torch.lerp(one.out.to(share.dtype), other.out.to(share.dtype), share)
    return Part(out.to(one.out.dtype), torch.logaddexp(one.lse, other.lse))


def part_gradients(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grad_out: Tensor,
    lse: Tensor,
    delta: Tensor,
    *,
    scale: float,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the keys of one part contribute to the gradients of the whole.

    Args:
        q: ``[B, H, M, D]``.
        k: ``[B, H, N, D]``.
        v: ``[B, H, N, D]``.
        grad_out: ``[B, H, M, D]``, gradient of the merged output.
        lse: ``[B, H, M]`` of the merged output.
        delta: ``[B, H, M]``, sum of grad_out * merged output over D.
        scale: As in the forward pass.
        bias: As in the forward pass.

    Returns:
        Gradients of q, k and v in the dtype of `lse`.
    """
    dtype = lse.dtype
    grad_q = torch.empty(q.shape, dtype=dtype, device=q.device)
    grad_k = torch.zeros(k.shape, dtype=dtype, device=q.device)
    grad_v = torch.zeros(v.shape, dtype=dtype, device=q.device)
    step = max(1, PLAIN_SCORES // max(1, q.shape[0] * q.shape[1] * k.shape[2]))
    for start in range(0, q.shape[2], step):
        rows = slice(start, start + step)
        scores = scaled_scores(q[:, :, rows], k, _rows(bias, start, step), scale)
        probs = torch.exp(scores - lse[:, :, rows, None])
        grad = grad_out[:, :, rows].to(dtype)
        grad_v += probs.transpose(-1, -2) @ grad
        grad_probs = grad @ v.to(dtype).transpose(-1, -2)
        grad_scores = probs * (grad_probs - delta[:, :, rows, None]) * scale
        grad_q[:, :, rows] = grad_scores @ k.to(dtype)
        grad_k += grad_scores.transpose(-1, -2) @ q[:, :, rows].to(dtype)
    return grad_q, grad_k, grad_v


class FlashCPU:
    """torch's fused attention for CPUs."""

    @staticmethod
    def why_not(q: Tensor) -> str | None:
        if q.device.type != "cpu":
            return "the tensors are not on the CPU"
        if q.numel() == 0:
            return "there are no queries"
        return None

    @staticmethod
    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Part:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, False, attn_mask=bias, scale=scale
        )
        return Part(out, lse)


class EfficientCUDA:
    """torch's memory-efficient attention, on CUDA and on ROCm where its build has it."""

    @staticmethod
    def why_not(q: Tensor) -> str | None:
        if q.device.type != "cuda":
            return "the tensors are not on a CUDA or ROCm device"
        if not torch.backends.cuda.mem_efficient_sdp_enabled():
            return "memory-efficient attention is switched off in torch"
        if torch.version.hip and not torch.backends.cuda.is_flash_attention_available():
            return "this ROCm build has no fused attention"
        return _why_not_fused(q)

    @staticmethod
    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Part:
        bias = _aligned(bias, (*q.shape[:3], k.shape[2]))
        out, lse, _, _ = torch.ops.aten._scaled_dot_product_efficient_attention(
            q, k, v, bias, True, 0.0, False, scale=scale
        )
        # The kernel pads the log-sum-exp to 32 queries.
        return Part(out, lse[:, :, : q.shape[2]])


class Xformers:
    """xformers, for those who run it: `pip install clear-attention[xformers]`."""

    @staticmethod
    def why_not(q: Tensor) -> str | None:
        if q.device.type != "cuda":
            return "the tensors are not on a CUDA or ROCm device"
        if torch.is_grad_enabled():
            return "it has no gradient"
        if Xformers._module() is None:
            return "xformers is not installed"
        return _why_not_fused(q)

    @staticmethod
    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Part:
        fmha = Xformers._module()
        assert fmha is not None
        bias = _aligned(bias, (*q.shape[:3], k.shape[2]))
        # xformers orders [B, M, H, D].
        out, lse = fmha.memory_efficient_attention_forward_requires_grad(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_bias=bias, scale=scale
        )
        return Part(out.transpose(1, 2), lse[:, :, : q.shape[2]])

    @staticmethod
    def _module() -> ModuleType | None:
        try:
            return importlib.import_module("xformers.ops.fmha")
        except ImportError:
            return None


class Plain:
    """Two matrix products with a softmax between them, in chunks of queries: any device."""

    @staticmethod
    def why_not(q: Tensor) -> str | None:
        return None

    @staticmethod
    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Part:
        rows = max(1, PLAIN_SCORES // max(1, q.shape[0] * q.shape[1] * k.shape[2]))
        parts = [
            Plain._chunk(q[:, :, start : start + rows], k, v, _rows(bias, start, rows), scale)
            for start in range(0, max(1, q.shape[2]), rows)
        ]
        return Part(
            torch.cat([part.out for part in parts], 2), torch.cat([part.lse for part in parts], 2)
        )

    @staticmethod
    def _chunk(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Part:
        scores = scaled_scores(q, k, bias, scale)
        lse = torch.logsumexp(scores, -1)
        return Part(torch.exp(scores - lse.unsqueeze(-1)).to(v.dtype) @ v, lse)


SOURCES: tuple[type[Source], ...] = (FlashCPU, EfficientCUDA, Xformers, Plain)


def scaled_scores(q: Tensor, k: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """Return ``[B, H, M, N]`` scores, computed in the accumulation dtype."""
    dtype = accumulation_dtype(q.dtype)
    scores = q.to(dtype) @ k.to(dtype).transpose(-1, -2) * scale
    return scores if bias is None else scores + bias


def aligned_zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return zeros whose rows lie a multiple of 16 elements apart, as CUDA's fused kernels want."""
    padded = like.new_zeros((*shape[:-1], -(-shape[-1] // 16) * 16))
    return padded[..., : shape[-1]]


def _rows(bias: Tensor | None, start: int, rows: int) -> Tensor | None:
    if bias is None or bias.shape[-2] == 1:
        return bias
    return bias[..., start : start + rows, :]


def _aligned(bias: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
    """Expand the bias to the shape of the scores, its rows a multiple of 8 elements apart."""
    if bias is None:
        return None
    if bias.stride(-2) % 8 or bias.stride(-1) != 1:
        bias = aligned_zeros((*bias.shape[:-1], shape[-1]), bias).copy_(bias)
    return bias.expand(shape)


def _why_not_fused(q: Tensor) -> str | None:
    if q.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return f"{q.dtype} is not supported"
    if q.shape[-1] % 8:
        return f"head_dim {q.shape[-1]} is no multiple of 8"
    return None
