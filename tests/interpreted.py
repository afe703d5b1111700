"""The Triton backend on the CPU, by Triton's interpreter (`conftest.py` asks for it)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from triton.language import core
from triton.runtime import interpreter
from triton.runtime.interpreter import GridExecutor, InterpretedFunction

from clear_attention.backends.triton import configs, launch
from clear_attention.backends.triton.configs import Config
from clear_attention.backends.triton.lists import Shape

# Fewer and larger steps are faster where each step is a call of numpy.
SHAPES = {"wide": Shape(8, 16, 64), "small": Shape(4, 8, 16), "square": Shape(8, 8, 32)}


@contextlib.contextmanager
def interpreted(shape: Shape = SHAPES["wide"], processors: int = 1) -> Iterator[None]:
    """Choose how the interpreted kernels are tiled.

    Args:
        shape: Of the tiles.
        processors: Among which the keys of text queries are split.
    """
    with (
        patch.object(configs, "INTERPRETED", Config(shape, 1, 1)),
        patch.object(launch, "_processors", lambda device: processors),
    ):
        yield


def _prepare_once() -> None:
    """Let Triton prepare its language once per launch and module of kernels, in this process.

    By itself it does so at each call of a function within a kernel: a third of the time, for
    nothing but what is there already.
    """
    prepared: set[int] = set()
    launched = GridExecutor.__call__

    def launch_kernel(self: GridExecutor, *args: Any, **kwargs: Any) -> None:
        prepared.clear()
        launched(self, *args, **kwargs)

    def call(self: InterpretedFunction[Any], *args: Any, **kwargs: Any) -> Any:
        module = id(self.fn.__globals__)
        if module not in prepared:
            prepared.add(module)
            interpreter._patch_lang(self.fn)
        return self.rewrite()(*args, **kwargs)

    GridExecutor.__call__ = launch_kernel
    InterpretedFunction.__call__ = call


def _leave_out_what_is_thrown_away() -> None:
    """Let Triton not compute which sums of whole numbers overflow, in this process.

    It drops what it finds unless options ask for debugging, which those of the interpreter do not:
    a third of the time, for nothing.
    """
    options = interpreter.interpreter_builder.options
    assert not options.debug
    interpreter.interpreter_builder.options = replace(options, sanitize_overflow=False)


def _remember_types_of_shapes() -> None:
    """Let Triton make the type of a shape once, and not at each step: a sixth of the time."""
    made: dict[tuple[int, ...], core.tuple_type] = {}
    make = core._type_for_tuple_values

    def of_values(values: Sequence[Any], fields: Any = None) -> core.tuple_type:
        key = tuple(_plain(values))
        if fields is not None or any(type(value) is not int for value in key):
            return make(values, fields)
        if key not in made:
            made[key] = make(values)
        return made[key]

    core._type_for_tuple_values = of_values
    core._unwrap_shape = _plain


def _plain(shape: Iterable[Any]) -> list[Any]:
    return [size.value if isinstance(size, core.constexpr) else size for size in shape]


_prepare_once()
_remember_types_of_shapes()
_leave_out_what_is_thrown_away()
