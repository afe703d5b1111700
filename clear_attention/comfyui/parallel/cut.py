"""Cut a model call's tokens down to a rank's, and put its result together again.

Everything happens in hooks on the rank's own copy of the network, for the time of one call.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...layout import TokenLayout
from ...parallel.attention import Seat
from ...parallel.transport import Expected
from ..core.calls.shared_nets import Residuals, SharedResiduals, rows_of
from ..core.geometry import Geometry
from ..families import HostFamily, plain_module
from ..families.cut import Cut

Arguments = dict[str, Any]


class Sharing:
    """One model call on one rank: which tokens it takes, and how its result is put together.

    Args:
        geometry: Of the whole picture.
        seat: Of the rank.
    """

    def __init__(self, geometry: Geometry, seat: Seat) -> None:
        self.geometry = geometry
        self.seat = seat

    def take(self, tokens: Tensor, dim: int) -> Tensor:
        """Select the rank's tokens of a whole sequence along a dimension."""
        layout = self._layout(tokens.shape[dim])
        return self.seat.partition.of(tokens, layout, self.seat.rank, dim)

    def take_arguments(self, arguments: Arguments, cut: Mapping[str, int], names: Any) -> None:
        """Select the rank's tokens in arguments, and count places in the sequence anew.

        Args:
            arguments: Changed.
            cut: Name -> dimension of the tokens.
            names: Of the arguments that are places.
        """
        lengths = [arguments[name].shape[dim] for name, dim in cut.items()]
        counted = self.geometry.counted
        layout = self._layout(lengths[0] if lengths else counted)
        for name, dim in cut.items():
            arguments[name] = self.take(arguments[name], dim)
        self._count_places(arguments, names, layout)

    def take_places(self, arguments: Arguments, names: Any) -> None:
        """Count places in the sequence anew for the module whose output is put together.

        Args:
            arguments: Of the module, tokens first; changed.
            names: Of the arguments that are places.
        """
        tokens = next(iter(arguments.values())).shape[1]
        self._count_places(arguments, names, self._layout_of_own(tokens))

    def spread(self, tokens: Tensor) -> Tensor:
        """Return a whole sequence ``[B, tokens, C]``, zero where the rank's tokens are not.

        Args:
            tokens: ``[B, tokens, C]`` of the rank.
        """
        layout = self._layout_of_own(tokens.shape[1])
        whole = tokens.new_zeros(tokens.shape[0], layout.tokens, tokens.shape[2])
        return self.seat.partition.put(tokens, whole, layout, self.seat.rank)

    def join(self, tokens: Tensor) -> Tensor:
        """Return the whole sequence ``[B, tokens, C]`` on rank 0, and zeros elsewhere.

        Shared extra tokens of other ranks are zero: nobody reads them.
        """
        seat, partition = self.seat, self.seat.partition
        layout = self._layout_of_own(tokens.shape[1])
        start = layout.text
        own = tokens[:, start : start + partition.image(seat.rank)].contiguous()
        shape = (tokens.shape[0], layout.tokens, tokens.shape[2])
        if seat.rank:
            seat.transport.exchange({0: [own]}, {}).wait()
            return tokens.new_zeros(1, 1, 1).expand(shape)
        awaited = {
            rank: [Expected((shape[0], partition.image(rank), shape[2]), tokens.dtype)]
            for rank in seat.others
        }
        bands = seat.transport.exchange({}, awaited).wait() | {0: [own]}
        whole = partition.put(tokens, tokens.new_zeros(shape), layout, seat.rank)
        whole[:, layout.image_slice] = partition.join(
            [bands[rank][0] for rank in range(partition.size)]
        )
        return whole

    def _layout_of_own(self, tokens: int) -> TokenLayout:
        return self._checked(self.geometry.of_rank(self.seat).layout(tokens), tokens)

    def _layout(self, tokens: int) -> TokenLayout:
        return self._checked(self.geometry.layout(tokens), tokens)

    def _checked(self, layout: TokenLayout | None, tokens: int) -> TokenLayout:
        if layout is None:
            raise ValueError(
                f"{tokens} tokens must hold the picture's grid of {self.geometry.height} x "
                f"{self.geometry.width}. Remove CLEAR Parallel from this model, and report it."
            )
        return layout

    def _count_places(self, arguments: Arguments, names: Any, layout: TokenLayout) -> None:
        for name in names:
            if arguments.get(name) is not None:
                arguments[name] = self._places(arguments[name], layout)

    def _places(self, places: Any, layout: TokenLayout) -> Any:
        if isinstance(places, int):
            return self.seat.partition.kept_before(places, layout, self.seat.rank)
        return type(places)(self._places(place, layout) for place in places)


@contextmanager
def tokens_cut(
    cut: Cut, family: HostFamily, network: nn.Module, geometry: Geometry, seat: Seat
) -> Generator[None]:
    """Let a rank's copy of a network compute the rank's tokens only, in the calls that follow.

    Args:
        cut: Of the network.
        family: Of the network.
        network: Of the rank, compiled or not.
        geometry: Of the call.
        seat: Of the rank.
    """
    module = plain_module(network)
    sharing = Sharing(geometry, seat)
    with ExitStack() as hooks:
        if cut.method:
            hooks.enter_context(_method_cut(module, cut, sharing))
        for path, dim in cut.outputs.items():
            take = functools.partial(sharing.take, dim=dim)
            hooks.enter_context(_output_changed(module.get_submodule(path), take))
        if not cut.method:
            _cut_blocks(cut, family, module, sharing, hooks)
        if cut.joined:
            last = module.get_submodule(cut.joined)
            if _takes_places(last, cut):
                take = functools.partial(sharing.take_places, names=cut.places)
                hooks.enter_context(_arguments_changed(last, take))
            hooks.enter_context(_output_changed(last, sharing.join))
        yield


def _cut_blocks(
    cut: Cut, family: HostFamily, module: nn.Module, sharing: Sharing, hooks: ExitStack
) -> None:
    """Cut the arguments of blocks, and make sequences whole between two kinds."""
    kinds = [blocks for kind in family.blocks if (blocks := kind.of(module))]
    for blocks in kinds:
        for block in blocks:
            named = {**(cut.first if block is blocks[0] else {}), **cut.blocks}
            if named or _takes_places(block, cut):
                take = functools.partial(sharing.take_arguments, cut=named, names=cut.places)
                hooks.enter_context(_arguments_changed(block, take))
        if cut.first and blocks is not kinds[-1]:
            hooks.enter_context(_output_changed(blocks[-1], sharing.spread))


def _takes_places(module: nn.Module, cut: Cut) -> bool:
    """Return whether a module has an argument that is a place in the sequence; hosts differ."""
    known = inspect.signature(plain_module(module).forward).parameters
    return not known.keys().isdisjoint(cut.places)


@contextmanager
def _method_cut(module: nn.Module, cut: Cut, sharing: Sharing) -> Generator[None]:
    """Cut the arguments of the method that runs the blocks."""
    original: Callable[..., Any] = getattr(module, cut.method)
    signature = inspect.signature(original)

    @functools.wraps(original)  # so that others still see whose it is
    def method(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        sharing.take_arguments(bound.arguments, cut.arguments, cut.places)
        return original(*bound.args, **bound.kwargs)

    setattr(module, cut.method, method)
    try:
        yield
    finally:
        delattr(module, cut.method)


@contextmanager
def _output_changed(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Generator[None]:
    def changed(_module: nn.Module, _args: Any, output: Any) -> Any:
        return change(output)

    hook = module.register_forward_hook(changed)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _arguments_changed(module: nn.Module, change: Callable[[Arguments], None]) -> Generator[None]:
    signature = inspect.signature(plain_module(module).forward)

    def changed(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        bound = signature.bind(*args, **kwargs)
        change(bound.arguments)
        return (), dict(bound.arguments)

    hook = module.register_forward_pre_hook(changed, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def residuals_cut(control: Residuals | None, seat: Seat) -> Residuals | None:
    """Select a rank's rows of the residuals of ControlNets.

    Args:
        control: Of a model call, or None.
        seat: Of the rank.
    """
    if isinstance(control, SharedResiduals):
        return control.of(seat)
    return None if control is None else rows_of(control, seat)


def moved(value: Any, device: torch.device) -> Any:
    """Return a value with the tensors in its lists, tuples and dicts on another device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if type(value) in (list, tuple):
        return type(value)(moved(one, device) for one in value)
    if type(value) is dict:
        return {key: moved(one, device) for key, one in value.items()}
    return value
