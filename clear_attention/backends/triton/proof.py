"""Small calls with known results, before a GPU is trusted with pictures.

A compiler for a GPU that nobody has tried may fail, or be wrong. Both are found here, once per
process and kind of call, and another backend is taken.
"""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor

from ...backends import reference
from ...layout import TokenLayout
from ...partial import Part
from ...pooling import Pooling
from ...precision import unrounded
from ...window import Window
from ..call import Call
from ..lasting import lasting

logger = logging.getLogger(__name__)

# Layout, window and pooling of each call. In the second one, no shared key opens a tile's list.
CASES = (
    (TokenLayout(77, 37, 45, extra=5), Window(6), Pooling(4)),
    (TokenLayout(0, 17, 20), Window(4), None),
    (TokenLayout(1, 13, 22), Window(3), Pooling(4)),
)
TOLERANCE = 8  # roundings of the dtype: both probabilities and output are rounded once
ROUNDED_TOLERANCE = 0.05  # three times what 8 bits cost at worst on such tensors


@functools.cache
def why_not(
    device: torch.device, dtype: torch.dtype, head_dim: int, rounded: bool = False
) -> str | None:
    """Return what went wrong with the small calls, or None.

    Args:
        device: The GPU.
        dtype: Of q, k and v.
        head_dim: Their last dimension.
        rounded: Whether q and k are rounded to 8 bits.
    """
    allowed = ROUNDED_TOLERANCE if rounded else TOLERANCE * torch.finfo(dtype).eps
    for layout, window, pooling in CASES:
        call = Call(layout, window, pooling, head_dim**-0.5)
        try:
            with lasting(), torch.inference_mode(), unrounded(device):
                error = _error(device, dtype, head_dim, call, rounded)
        except Exception as error:  # whatever a compiler may raise
            first_line = (str(error).splitlines() or [""])[0]
            logger.warning("CLEAR: Triton's kernel does not run on %s: %r", device, error)
            return f"its kernel does not run here ({type(error).__name__}: {first_line})"
        if not error <= allowed:
            return f"its self-check failed here: error {error:.1e}, allowed {allowed:.1e}"
    return None


def _error(
    device: torch.device, dtype: torch.dtype, head_dim: int, call: Call, rounded: bool
) -> float:
    """Compute a call on random tensors; return its error, NaN where a result is."""
    from . import attend

    generator = torch.Generator(device).manual_seed(0)
    shape = (1, 2, call.layout.tokens, head_dim)
    q, k, v = (torch.randn(shape, generator=generator, device=device).to(dtype) for _ in range(3))
    found = attend(q, k, v, call, rounded)
    exact = reference.attend(q.float(), k.float(), v.float(), call)
    return float(_largest_error(found, exact))


def _largest_error(found: Part, exact: Part) -> Tensor:
    out = (found.out - exact.out).abs().max() / exact.out.abs().max()
    return torch.maximum(out, (found.lse - exact.lse).abs().max())  # keeps NaN, unlike max()
