"""FlexAttention over tile-ordered tokens."""
from __future__ import annotations
from torch import Tensor
from ..partial import Part
from .call import Call


def why_not(q: Tensor, call: Call) -> str | None:
    return "not written yet"


def why_not_auto(q: Tensor, call: Call) -> str | None:
    return None


def attend(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Part:
    raise NotImplementedError
