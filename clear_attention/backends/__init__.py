"""The ways to compute CLEAR attention, in the order in which "auto" tries them."""

from __future__ import annotations

from torch import Tensor

from . import flex, masked, reference, tiled, triton, triton_int8
from .call import Backend, Call

BACKENDS: dict[str, Backend] = {
    "masked": masked,
    "triton": triton,
    "tiled": tiled,
    "flex": flex,
    "triton_int8": triton_int8,
    "reference": reference,
}


def choose(q: Tensor, call: Call, backend: str = "auto") -> Backend:
    """Return the named backend, or the first one that has no objection.

    Raises:
        ValueError: The name is unknown, or the named backend cannot take the call.
    """
    if backend == "auto":
        return BACKENDS[choose_name(q, call)]
    if backend not in BACKENDS:
        raise ValueError(f"backend must be auto, {', '.join(BACKENDS)}, got {backend!r}.")
    objection = BACKENDS[backend].why_not(q, call)
    if objection:
        raise ValueError(f"The {backend} backend cannot take this call: {objection}.")
    return BACKENDS[backend]


def choose_name(q: Tensor, call: Call) -> str:
    """Return the name of the backend that "auto" takes."""
    for name, backend in BACKENDS.items():
        if backend.why_not(q, call) is None and backend.why_not_auto(q, call) is None:
            return name
    raise AssertionError("The masked backend accepts every call.")


def why_not_triton(q: Tensor, call: Call) -> str | None:
    """Say why the fastest backend is not taken on a GPU, or None: it is, or there is no GPU."""
    if q.device.type != "cuda":
        return None
    return triton.why_not(q, call)
