"""The Triton backend on the CPU, by Triton's interpreter (`conftest.py` asks for it)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

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


_prepare_once()
