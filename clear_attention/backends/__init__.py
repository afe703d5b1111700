"""The ways to compute CLEAR attention, in the order in which "auto" tries them."""

from __future__ import annotations

from torch import Tensor

from ..backends import flex, masked, reference, tiled, triton, triton_int8
from .call import About, Backend, Call, Footprint

BACKENDS: dict[str, Backend] = {
    "masked": masked,
    "triton": triton,
    "tiled": tiled,
    "flex": flex,
    "triton_int8": triton_int8,
    "reference": reference,
}


__all__ = [
    "BACKENDS",
    "About",
    "Backend",
    "Call",
    "Footprint",
    "choose",
    "choose_name",
    "in_words",
    "resolve_name",
    "why_not_triton",
]


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


def resolve_name(q: Tensor, call: Call, backend: str) -> str:
    """Return the name of the backend that a model takes: the one asked for, if it has no objection.

    Args:
        q: The queries; only shape, dtype and device count.
        call: The call.
        backend: "auto" or a name.
    """
    if backend != "auto" and BACKENDS[backend].why_not(q, call) is None:
        return backend
    return choose_name(q, call)


def in_words() -> str:
    """Return what users are told of all backends: for large pictures first, those that round last.

    Backends of which the same is told share a clause.
    """
    names: dict[About, list[str]] = {}
    for name, backend in BACKENDS.items():
        names.setdefault(backend.ABOUT, []).append(name)
    exact = [about for about in names if about.exact]
    clauses = [
        _clause(names[about], about.line) for about in sorted(exact, key=lambda a: not a.linear)
    ]
    rounded = [_clause(names[about], about.line) for about in names if not about.exact]
    return " ".join(f"{sentence}." for sentence in (", ".join(clauses), *rounded))


def _clause(names: list[str], line: str) -> str:
    if len(names) == 1:
        return f"{names[0]} {line}"
    verb, rest = line.split(" ", 1)
    plural = {"is": "are"}.get(verb, verb.removesuffix("s"))
    return f"{', '.join(names[:-1])} and {names[-1]} {plural} {rest}"


def why_not_triton(q: Tensor, call: Call) -> str | None:
    """Say why the fastest backend is not taken on a GPU, or None: it is, or there is no GPU."""
    if q.device.type != "cuda":
        return None
    return triton.why_not(q, call)
