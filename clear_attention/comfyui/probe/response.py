"""How a block responds to a change of its attention's output: the block is run a second time.

What lies between an attention and the output of its block differs between architectures:
projection, norms behind it, gates, an MLP beside it or behind it. A second run of the block, on
copies of its inputs and with a changed result of its attention, measures all of it at once, however
the weights are stored. Attentions are not computed again: others in the block return what they did.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

ENLARGED = 0.5
"""Length of a change as a share of the output's: far above the rounding of bfloat16."""


@dataclass(eq=False)
class Attended:
    """An attention call of the block that runs.

    Attributes:
        out: What it returned.
        changed: The same with the change, or None where no response is wanted.
        answer: Is given the squared change of the block's output per squared change of `out`.
    """

    out: Tensor
    changed: Tensor | None = None
    answer: Callable[[float], None] | None = None


class Responses:
    """Measures responses during calls of a model, while its blocks are `watched`.

    Args:
        unrecorded: Makes a context for what a host must not record as the blocks' own work.
    """

    def __init__(self, unrecorded: Callable[[], AbstractContextManager[object]]) -> None:
        self._unrecorded = unrecorded
        self._given: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._attended: list[Attended] = []
        self._changed: int | None = None  # which call is changed in a second run
        self._calls = 0

    @contextmanager
    def watched(self, blocks: Iterable[nn.Module]) -> Generator[None]:
        """Run each of these blocks again behind its own run, as long as this lasts."""
        begin: Any = torch.compiler.disable(self._begin)
        end: Any = torch.compiler.disable(self._end)
        with ExitStack() as hooks:
            for block in blocks:
                before = block.register_forward_pre_hook(begin, with_kwargs=True)
                behind = block.register_forward_hook(end, with_kwargs=True)
                hooks.callback(before.remove)
                hooks.callback(behind.remove)
            yield

    @property
    def wants(self) -> bool:
        """Whether a watched block is in its own run."""
        return self._given is not None and not self.runs_again

    @property
    def runs_again(self) -> bool:
        """Whether a block is in its second run, whose attentions are none to be measured."""
        return self._changed is not None

    def add(self, attended: Attended) -> None:
        """Take an attention call of the running block, in the order of its calls."""
        if self._given is not None:
            self._attended.append(attended)

    def attend_again(self) -> Tensor:
        """Return what the next attention of a second run is given: what it returned before."""
        attended = self._attended[self._calls]
        found = attended.changed if self._calls == self._changed else attended.out
        self._calls += 1
        assert found is not None
        return found.clone()

    def _begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self.runs_again:
            with self._unrecorded():
                self._given, self._attended = _copied(args, kwargs), []

    def _end(
        self, block: nn.Module, _: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        if self.runs_again or self._given is None:
            return
        try:
            with self._unrecorded():
                for call, attended in enumerate(self._attended):
                    if attended.changed is not None and attended.answer is not None:
                        again = partial(self._run_again, block, call)
                        attended.answer(_response(attended, output, again))
        finally:
            self._given, self._attended = None, []

    def _run_again(self, block: nn.Module, call: int) -> Any:
        assert self._given is not None
        args, kwargs = _copied(*self._given)
        self._changed, self._calls = call, 0
        try:
            return block(*args, **kwargs)
        finally:
            self._changed = None


def with_changes(out_BLC: Tensor, rows: Tensor, changes_BMC: Tensor) -> Tensor:
    """Return an attention's output with changes of some rows, enlarged to `ENLARGED` of each row.

    Args:
        out_BLC: What the attention returned.
        rows: ``[M]``, which rows change.
        changes_BMC: Of any length; rows without a change stay.
    """
    before = out_BLC[:, rows].to(changes_BMC.dtype)
    length = changes_BMC.norm(dim=-1, keepdim=True)
    wanted = ENLARGED * before.norm(dim=-1, keepdim=True)
    factor = torch.where(length > 0, wanted / length, 0.0)
    changed = out_BLC.clone()
    changed[:, rows] = (before + factor * changes_BMC).to(changed.dtype)
    return changed


def _response(attended: Attended, output: Any, run_again: Callable[[], Any]) -> float:
    assert attended.changed is not None
    change = _squared_difference(attended.out, attended.changed)
    if not change:
        return 0.0
    pairs = zip(_tensors(output), _tensors(run_again()), strict=True)
    return sum(_squared_difference(before, after) for before, after in pairs) / change


def _squared_difference(before: Tensor, after: Tensor) -> float:
    return float((before.float() - after.float()).square().sum())


def _tensors(output: Any) -> list[Tensor]:
    """List the tensors of what a block returns."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, (tuple, list)):
        return [tensor for one in output for tensor in _tensors(one)]
    return []


def _copied(
    args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Copy the tensors of tokens among a block's arguments, to which blocks add in place."""
    return tuple(map(_copy, args)), {name: _copy(value) for name, value in kwargs.items()}


def _copy(value: Any) -> Any:
    tokens = isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 2
    return value.clone() if tokens else value
