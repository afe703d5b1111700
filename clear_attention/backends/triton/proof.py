"""A small call with a known result, before a GPU is trusted with pictures.

A compiler for a GPU that nobody has tried may fail, or be wrong. Both are found here, once per
process and kind of call, and another backend is taken.
"""

from __future__ import annotations

import functools
import logging

import torch

from ...backends import reference
from ...layout import TokenLayout
from ...pooling import Pooling
from ...window import Window
from ..call import Call

logger = logging.getLogger(__name__)

LAYOUT = TokenLayout(77, 37, 45, extra=5)
WINDOW, POOLING = Window(6), Pooling(4)
TOLERANCE = 8  # roundings of the dtype: both probabilities and output are rounded once
ROUNDED_TOLERANCE = 0.05  # three times what 8 bits cost at worst on such tensors


@functools.cache
def why_not(
    device: torch.device, dtype: torch.dtype, head_dim: int, rounded: bool = False
) -> str | None:
    """Say what went wrong with the small call, or None.

    Args:
        device: The GPU.
        dtype: Of q, k and v.
        head_dim: Their last dimension.
        rounded: Whether q and k are rounded to 8 bits.
    """
    from ..triton import attend

    call = Call(LAYOUT, WINDOW, POOLING, head_dim**-0.5)
    generator = torch.Generator(device).manual_seed(0)
    try:
        with torch.inference_mode():
            q, k, v = (
                torch.randn(1, 2, LAYOUT.tokens, head_dim, generator=generator, device=device).to(
                    dtype
                )
                for _ in range(3)
            )
            found = attend(q, k, v, call, rounded)
            exact = reference.attend(q.float(), k.float(), v.float(), call)
            error = max(
                ((found.out - exact.out).abs().max() / exact.out.abs().max()).item(),
                (found.lse - exact.lse).abs().max().item(),
            )
    except Exception as error:  # whatever a compiler may raise
        first_line = (str(error).splitlines() or [""])[0]
        logger.warning("CLEAR: Triton's kernel does not run on %s: %r", device, error)
        return f"its kernel does not run here ({type(error).__name__}: {first_line})"
    allowed = ROUNDED_TOLERANCE if rounded else TOLERANCE * torch.finfo(dtype).eps
    if not error <= allowed:
        return f"its self-check failed here: error {error:.1e}, allowed {allowed:.1e}"
    return None
