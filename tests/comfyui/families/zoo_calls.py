"""Record the attention calls of a model: in which block, with which tokens, by whom."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from .zoo import Entry

OVERRIDE = "optimized_attention_override"


@dataclass(frozen=True, eq=False)
class Seen:
    """One attention call.

    Attributes:
        block: Kind and index of the block, or None outside of all blocks of the entry.
        nth: How many calls of the block came before it.
        q: ``[B, L, H D]``.
        out: ``[B, L, H D]``.
        layout: Where the pack took the tokens to lie, or None where the host attended.
    """

    block: tuple[str, int] | None
    nth: int
    q: Tensor
    out: Tensor
    layout: Any = None

    @property
    def image(self) -> range:
        """Rows of `q` that are the grid's; queries may be the last ones of the layout."""
        first = self.layout.image_slice.start - (self.layout.tokens - self.q.shape[1])
        return range(first, first + self.layout.image)

    @property
    def text(self) -> range:
        """Rows of `q` in front of the grid."""
        return range(self.image.start)


class Calls:
    """Follows which block runs by hooks of its own, while it is entered."""

    def __init__(self, entry: Entry, model: Any) -> None:
        self.seen: list[Seen] = []
        self._blocks = listed(entry, model)
        self._running: list[tuple[str, int]] = []
        self._count = 0
        self._hooks = ExitStack()

    def __enter__(self) -> None:
        for block, module in self._blocks.items():
            enter = module.register_forward_pre_hook(partial(self._enter, block))
            leave = module.register_forward_hook(self._leave)
            self._hooks.callback(enter.remove)
            self._hooks.callback(leave.remove)

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def seen_by(self, model: Any) -> Any:
        """Return a clone of a MODEL whose calls are seen where they reach the host's attention."""

        def override(func: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
            q = _rows(args[0])
            out = func(*args, **kwargs)
            self._add(q, _rows(out))
            return out

        return overridden(model, override)

    def local(self, attention: Callable[..., Any]) -> Callable[..., Any]:
        """Return the library's function, whose calls are seen."""

        def seen(q: Tensor, k: Tensor, v: Tensor, layout: Any, *args: Any, **kwargs: Any) -> Any:
            out = attention(q, k, v, layout, *args, **kwargs)
            self._add(_rows(q), _rows(out), layout)
            return out

        return seen

    def _add(self, q: Tensor, out: Tensor, layout: Any = None) -> None:
        block = self._running[-1] if self._running else None
        self.seen.append(Seen(block, self._count, q, out, layout))
        self._count += 1

    def _enter(self, block: tuple[str, int], *_: object) -> None:
        self._running.append(block)
        self._count = 0

    def _leave(self, *_: object) -> None:
        self._running.pop()


def overridden(model: Any, override: Callable[..., Tensor]) -> Any:
    """Return a clone of a MODEL with another node's attention."""
    model = model.clone()
    model.model_options.setdefault("transformer_options", {})[OVERRIDE] = override
    return model


def in_float64(model: Any) -> Any:
    """Return a clone of a MODEL whose attention the host computes in float64."""

    def double(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    def override(func: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        exact = func(*map(double, args), **{name: double(each) for name, each in kwargs.items()})
        return exact.to(args[0].dtype)

    return overridden(model, override)


def listed(entry: Entry, model: Any) -> dict[tuple[str, int], nn.Module]:
    """Return the blocks of an entry's MODEL by kind and index."""
    network: nn.Module = model.model.diffusion_model
    return {
        (kind, index): block
        for kind, path in entry.blocks.items()
        for index, block in enumerate(network.get_submodule(path).children())
    }


def expected(entry: Entry, call: Seen) -> bool:
    """Return whether a call is the picture's own attention, for which a window is made."""
    return call.block is not None and (call.nth == 0 or not entry.first_call)


def changed_rows(before: Tensor, after: Tensor) -> list[int]:
    """List the rows of ``[B, L, C]`` that differ in any bit."""
    return (before != after).any(2).any(0).nonzero().flatten().tolist()


def _rows(x: Tensor) -> Tensor:
    """Return ``[B, L, H D]`` of what the host or the library has, ``[B, H, L, D]`` or that."""
    return (x.transpose(1, 2).flatten(2) if x.ndim == 4 else x).clone()
