"""What the report says when another node has put its positions in place of scaled ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from ..core.calls.model_call import ModelCall
from ..families import family_of, plain_module


def follow_call(call: ModelCall, latent: Tensor, diffusion_model: Any) -> None:
    """Report scaled positions that a later node has replaced."""
    family = family_of(diffusion_model)
    factor = call.settings.ntk_factor
    if call.report is None or factor == 1 or family is None or family.embedder is None:
        return
    embedder = family.embedder.of(plain_module(diffusion_model))
    if not any(hasattr(one, "clear_unscaled") for one in _inside(embedder)):
        call.report.warn(
            "another node has replaced the positional embedding after CLEAR High Resolution, so "
            f"that ntk_factor {factor:g} has no effect. Put CLEAR High Resolution behind that node"
        )


def _inside(embedder: nn.Module) -> Iterator[nn.Module]:
    """List an embedder and those inside of it, also past torch's registry of submodules."""
    seen: set[int] = set()
    waiting = [embedder]
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [*one.children(), *(v for v in vars(one).values() if _is_module(v))]


def _is_module(value: object) -> bool:
    return isinstance(value, nn.Module)
