"""The Triton backend on the CPU, by Triton's interpreter (`conftest.py` asks for it)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

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
